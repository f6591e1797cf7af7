"""A Hub in this process for the real client: repos of models and datasets with branches, commits, large files, tokens and faults."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 1_000_000  # bytes from which a file is uploaded as a large one, apart from the commit


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url`.

    `hub.repos` maps "models/someone/name" to the {path: bytes} of its main branch. `hub.tokens` maps tokens to their users, who write to
    their own namespace and see private repos (`hub.private`) of it alone. `hub.faults` maps "METHOD path", as a regular expression, to what
    the next such requests get instead of an answer, in order: a status code, or "drop" for a connection that breaks amid the request.
    `hub.log` lists the requests.
    """

    def __init__(self):
        self.repos, self.revisions, self.objects = {}, {}, {}
        self.tokens, self.private = {"hf_x": "someone"}, set()
        self.faults, self.log = {}, []
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

            def refuse(self, code, message, error_code=None):
                headers = [("X-Error-Message", message)] + (
                    [("X-Error-Code", error_code)] if error_code else []
                )
                self.answer({"error": message}, code, headers)

            def fails(self):
                """Whether a fault takes the place of the answer."""
                hub.log.append(f"{self.command} {self.path}")
                for request, faults in hub.faults.items():
                    if faults and re.fullmatch(
                        request, f"{self.command} {self.path.split('?')[0]}"
                    ):
                        fault = faults.pop(0)
                        if fault == "drop":
                            self.rfile.read(min(int(self.headers.get("content-length") or 0), 1000))
                            self.close_connection = True
                            self.connection.shutdown(socket.SHUT_RDWR)
                        else:
                            self.content()
                            self.refuse(
                                fault, "Too Many Requests" if fault == 429 else "as the test asked"
                            )
                        return True
                return False

            @property
            def user(self):
                return hub.tokens.get(self.headers.get("authorization", "").removeprefix("Bearer "))

            def may_write(self, namespace):
                if self.user is None:
                    self.refuse(401, "Invalid username or password.")
                elif self.user != namespace:
                    self.refuse(
                        403,
                        f'You don\'t have the rights to create or change a model under the namespace "{namespace}"',
                    )
                return self.user == namespace

            def may_read(self, repo):
                hidden = repo in hub.private and self.user != repo.split("/")[1]
                if repo not in hub.repos or hidden:
                    self.refuse(
                        401 if self.user is None else 404, "Repository not found", "RepoNotFound"
                    )
                    return False
                return True

            def do_PUT(self):
                if not self.fails():
                    content = self.content()
                    hub.objects[hashlib.sha256(content).hexdigest()] = content
                    self.answer(b"")

            def do_POST(self):
                if self.fails():
                    return None
                content, path = self.content(), self.path.split("?")[0]
                if path == "/api/validate-yaml":
                    return self.answer({"errors": [], "warnings": []})
                if path == "/api/repos/create":
                    asked = json.loads(content)
                    namespace = asked.get("organization") or self.user
                    if not self.may_write(namespace):
                        return None
                    repo = f"{asked.get('type', 'model')}s/{namespace}/{asked['name']}"
                    url = f"{hub.url}/{repo.removeprefix('models/')}"
                    if repo in hub.repos:
                        return self.answer(
                            {"url": url, "error": "You already created this repo"}, 409
                        )
                    hub.repos[repo] = {}
                    hub.commit(repo, "main", {})
                    if asked.get("visibility") == "private":
                        hub.private.add(repo)
                    return self.answer({"url": url, "name": asked["name"]})
                if found := re.fullmatch(
                    r"/(datasets/)?([^/]+)/([^/]+)\.git/info/lfs/objects/batch", path
                ):
                    if not self.may_write(found[2]):
                        return None
                    objects = [
                        wanted
                        | (
                            {}
                            if wanted["oid"] in hub.objects
                            else {"actions": {"upload": {"href": f"{hub.url}/{wanted['oid']}"}}}
                        )
                        for wanted in json.loads(content)["objects"]
                    ]
                    return self.answer({"transfer": "basic", "objects": objects})
                found = re.fullmatch(
                    r"/api/(\w+/([^/]+)/[^/]+)/(preupload|commit|branch)/([^/]+)", path
                )
                if not found or found[1] not in hub.repos:
                    return self.refuse(404, f"no such place: {path}", "RepoNotFound")
                if not self.may_write(found[2]):
                    return None
                repo, _, action, branch = found.groups()
                if action == "branch":
                    hub.revisions[repo][branch] = hub.revisions[repo]["main"]
                    return self.answer({})
                if action == "preupload":
                    modes = [
                        {
                            "path": f["path"],
                            "uploadMode": "lfs" if f["size"] >= LARGE else "regular",
                            "shouldIgnore": False,
                        }
                        for f in json.loads(content)["files"]
                    ]
                    return self.answer({"files": modes})
                files = dict(hub.revisions[repo][hub.revisions[repo][branch]])
                for line in map(json.loads, content.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        files[value["path"]] = hub.objects[value["oid"]]
                sha = hub.commit(repo, branch, files)
                url = f"{hub.url}/{repo.removeprefix('models/')}/commit/{sha}"
                return self.answer(
                    {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""}
                )

            def do_GET(self):
                if self.fails():
                    return None
                path = self.path.split("?")[0]
                if path == "/api/whoami-v2":
                    return self.answer(
                        {
                            "name": self.user,
                            "type": "user",
                            "auth": {"accessToken": {"role": "write"}},
                            "orgs": [],
                        }
                    )
                found = re.fullmatch(r"/api/(\w+/[^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?", path)
                resolved = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
                if found:
                    repo, revision = found[1], found[3] or "main"
                elif resolved:
                    repo, revision = (resolved[1] or "models/") + resolved[2], resolved[3]
                else:
                    return self.refuse(404, f"no such place: {path}")
                if not self.may_read(repo):
                    return None
                sha = revision if len(revision) == 40 else hub.revisions[repo].get(revision)
                if sha not in hub.revisions[repo]:
                    return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
                files = hub.revisions[repo][sha]
                if found and found[2] == "tree":
                    return self.answer(
                        [
                            {"type": "file", "path": name, "size": len(c), "oid": sha}
                            for name, c in files.items()
                        ]
                    )
                if found:
                    facts = {
                        "id": repo.split("/", 1)[1],
                        "sha": sha,
                        "private": repo in hub.private,
                        "tags": [],
                    }
                    return self.answer(
                        {**facts, "siblings": [{"rfilename": name} for name in files]}
                    )
                if resolved[4] not in files:
                    return self.answer(
                        {"error": "Entry not found"},
                        404,
                        [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", sha)],
                    )
                content = files[resolved[4]]
                return self.answer(
                    content,
                    headers=[
                        ("etag", f'"{hashlib.sha256(content).hexdigest()}"'),
                        ("X-Repo-Commit", sha),
                    ],
                )

            do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, repo, branch, files):
        """Makes `files` the content of a branch; returns the commit's id."""
        revisions = self.revisions.setdefault(repo, {})
        sha = hashlib.sha1(f"{repo} {branch} {len(revisions)}".encode()).hexdigest()
        revisions[sha], revisions[branch] = files, sha
        if branch == "main":
            self.repos[repo] = files
        return sha

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()
