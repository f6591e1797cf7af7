"""A Hub in this process for the real client: create, upload, list and download repos of models and datasets over HTTP."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url`; `hub.repos` maps "models/someone/name" to {path: bytes}."""

    def __init__(self):
        self.repos = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def content(self):
                if length := int(self.headers.get("content-length") or 0):
                    return self.rfile.read(length)
                chunks = []
                while self.headers.get("transfer-encoding", "").lower() == "chunked":
                    chunks.append(self.rfile.read(int(self.rfile.readline().strip(), 16)))
                    self.rfile.readline()
                    if not chunks[-1]:
                        break
                return b"".join(chunks)

            def answer(self, content, code=200, headers=()):
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                for name, value in (("content-length", str(len(content))), *headers):
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_POST(self):
                content, path = self.content(), self.path.split("?")[0]
                if path == "/api/repos/create":
                    asked = json.loads(content)
                    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                    hub.repos.setdefault(f"{asked.get('type', 'model')}s/{name}", {})
                    return self.answer({"url": f"{hub.url}/{name}", "name": name})
                if path == "/api/validate-yaml":
                    return self.answer({"errors": [], "warnings": []})
                found = re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)/(preupload|commit)/[^/]+", path)
                if not found or found[1] not in hub.repos:
                    return self.answer({"error": f"no such place: {path}"}, 404)
                if found[2] == "preupload":
                    files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(content)["files"]]
                    return self.answer({"files": files})
                for line in map(json.loads, content.splitlines()):
                    if line["key"] == "file":
                        hub.repos[found[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                commit = hashlib.sha1(content).hexdigest()
                place = found[1].removeprefix("models/")
                url = f"{hub.url}/{place}/commit/{commit}"
                return self.answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

            def do_GET(self):
                path = self.path.split("?")[0]
                if path == "/api/whoami-v2":
                    return self.answer({"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}, "orgs": []})
                if (found := re.fullmatch(r"/api/(\w+/[^/]+/[^/]+)(/revision/[^/]+)?", path)) and found[1] in hub.repos:
                    siblings = [{"rfilename": name} for name in hub.repos[found[1]]]
                    return self.answer(
                        {"id": found[1].split("/", 1)[1], "sha": "0" * 40, "private": False, "tags": [], "siblings": siblings}
                    )
                if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                    files = hub.repos.get((found[1] or "models/") + found[2])
                    if files is not None and found[3] in files:
                        etag = f'"{hashlib.sha1(files[found[3]]).hexdigest()}"'
                        return self.answer(files[found[3]], headers=(("etag", etag), ("x-repo-commit", "0" * 40)))
                    error = "RepoNotFound" if files is None else "EntryNotFound"
                    return self.answer({"error": error}, 404, [("X-Error-Code", error)])
                return self.answer({"error": f"no such place: {path}"}, 404, [("X-Error-Code", "RepoNotFound")])

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()
