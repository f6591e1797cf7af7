"""A Hub in this process for the real client: repos of models and datasets with branches, commits, large files, tokens
and faults."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 1_000_000  # bytes from which a file is uploaded as a large one, apart from the commit
LARGE_FILES = re.compile(
    r"/(?:datasets/)?(?P<owner>[^/]+)/[^/]+\.git/info/lfs/objects/batch"
)
CHANGE = re.compile(
    r"/api/(?P<repo>\w+/(?P<owner>[^/]+)/[^/]+)/(?P<action>preupload|commit|branch)/(?P<branch>[^/]+)"
)
FACTS = re.compile(
    r"/api/(?P<repo>\w+/[^/]+/[^/]+?)(?:/(?P<action>revision|tree)/(?P<revision>[^/]+))?"
)
FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
WHO_AM_I = {"type": "user", "auth": {"accessToken": {"role": "write"}}, "orgs": []}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class HubServer:
    """`with HubServer() as hub:` serves at `hub.url`.

    `hub.repos` maps "models/someone/name" to the {path: bytes} of its main branch. `hub.tokens` maps tokens to their
    users, who write to their own namespace and see private repos (`hub.private`) of it alone. `hub.faults` maps
    "METHOD path", as a regular expression, to what the next such requests get instead of an answer, in order: a status
    code, or "drop" for a connection that breaks amid the request. `hub.log` lists the requests.
    """

    def __init__(self):
        self.repos = {}
        self.revisions = {}  # repo -> {commit: its files, branch: its last commit}
        self.objects = {}  # SHA-256 -> content of a large file
        self.tokens = {"hf_x": "someone"}
        self.private = set()
        self.faults = {}
        self.log = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def url_of(self, repo):
        """The page of "models/someone/name" or "datasets/someone/name"."""
        return f"{self.url}/{repo.removeprefix('models/')}"

    def commit(self, repo, branch, files):
        """Makes `files` the content of a branch; returns the commit's id."""
        revisions = self.revisions.setdefault(repo, {})
        commit = hashlib.sha1(f"{repo} {branch} {len(revisions)}".encode()).hexdigest()
        revisions[commit] = files
        revisions[branch] = commit
        if branch == "main":
            self.repos[repo] = files
        return commit

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    @property
    def hub(self):
        return self.server.hub

    @property
    def route(self):
        """The path that is asked for, without its parameters."""
        return self.path.split("?")[0]

    @property
    def user(self):
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.hub.tokens.get(token)

    def do_PUT(self):
        if not self.fails():
            content = self.content()
            self.hub.objects[sha256(content)] = content
            self.answer(b"")

    def do_POST(self):
        if self.fails():
            return
        content = self.content()
        if self.route == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.route == "/api/repos/create":
            self.create_repo(json.loads(content))
        elif found := LARGE_FILES.fullmatch(self.route):
            self.list_uploads(found["owner"], json.loads(content)["objects"])
        elif (found := CHANGE.fullmatch(self.route)) and found[
            "repo"
        ] in self.hub.repos:
            self.change(found, content)
        else:
            self.refuse(404, f"no such place: {self.route}", "RepoNotFound")

    def do_GET(self):
        if self.fails():
            return
        if self.route == "/api/whoami-v2":
            self.answer({"name": self.user, **WHO_AM_I})
        elif found := FACTS.fullmatch(self.route):
            revision = found["revision"] or "main"
            self.send_facts(found["repo"], revision, found["action"])
        elif found := FILE.fullmatch(self.route):
            repo = (found["kind"] or "models/") + found["name"]
            self.send_file(repo, found["revision"], found["path"])
        else:
            self.refuse(404, f"no such place: {self.route}")

    do_HEAD = do_GET

    def content(self):
        """The body of the request."""
        if length := int(self.headers.get("content-length") or 0):
            return self.rfile.read(length)
        chunks = []
        while self.headers.get("transfer-encoding", "").lower() == "chunked":
            chunk_length = int(self.rfile.readline().strip(), 16)
            chunks.append(self.rfile.read(chunk_length))
            self.rfile.readline()
            if not chunk_length:
                break
        return b"".join(chunks)

    def answer(self, content, code=200, headers=()):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, code, message, error_code=None):
        headers = [("X-Error-Message", message)]
        if error_code:
            headers.append(("X-Error-Code", error_code))
        self.answer({"error": message}, code, headers)

    def fails(self):
        """Whether a fault takes the place of the answer."""
        self.hub.log.append(f"{self.command} {self.path}")
        for request, faults in self.hub.faults.items():
            if faults and re.fullmatch(request, f"{self.command} {self.route}"):
                self.fail(faults.pop(0))
                return True
        return False

    def fail(self, fault):
        if fault == "drop":
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(min(length, 1000))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.content()
            self.refuse(
                fault, "Too Many Requests" if fault == 429 else "as the test asked"
            )

    def may_write(self, namespace):
        if self.user is None:
            self.refuse(401, "Invalid username or password.")
        elif self.user != namespace:
            self.refuse(
                403,
                "You don't have the rights to create or change a model "
                f'under the namespace "{namespace}"',
            )
        return self.user == namespace

    def may_read(self, repo):
        hidden = repo in self.hub.private and self.user != repo.split("/")[1]
        if repo in self.hub.repos and not hidden:
            return True
        code = 401 if self.user is None else 404
        self.refuse(code, "Repository not found", "RepoNotFound")
        return False

    def create_repo(self, request):
        namespace = request.get("organization") or self.user
        if not self.may_write(namespace):
            return
        repo = f"{request.get('type', 'model')}s/{namespace}/{request['name']}"
        url = self.hub.url_of(repo)
        if repo in self.hub.repos:
            self.answer({"url": url, "error": "You already created this repo"}, 409)
            return
        self.hub.commit(repo, "main", {})
        if request.get("visibility") == "private":
            self.hub.private.add(repo)
        self.answer({"url": url, "name": request["name"]})

    def list_uploads(self, owner, wanted):
        """Says where to put those of the wanted large files that are not here yet."""
        if not self.may_write(owner):
            return
        objects = []
        for entry in wanted:
            if entry["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.url}/{entry['oid']}"}
                entry = {**entry, "actions": {"upload": upload}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def change(self, found, content):
        repo, branch = found["repo"], found["branch"]
        if not self.may_write(found["owner"]):
            return
        if found["action"] == "branch":
            revisions = self.hub.revisions[repo]
            revisions[branch] = revisions["main"]
            self.answer({})
        elif found["action"] == "preupload":
            self.say_how_to_upload(json.loads(content)["files"])
        else:
            self.commit(repo, branch, content)

    def say_how_to_upload(self, files):
        modes = []
        for file in files:
            mode = "lfs" if file["size"] >= LARGE else "regular"
            modes.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            )
        self.answer({"files": modes})

    def commit(self, repo, branch, content):
        revisions = self.hub.revisions[repo]
        files = dict(revisions[revisions[branch]])
        for line in content.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = self.hub.commit(repo, branch, files)
        url = f"{self.hub.url_of(repo)}/commit/{commit}"
        self.answer(
            {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}
        )

    def commit_of(self, repo, revision):
        """The commit that a branch or a commit's id names, or None, with a refusal, where the user may see none."""
        if not self.may_read(repo):
            return None
        revisions = self.hub.revisions[repo]
        commit = revision if len(revision) == 40 else revisions.get(revision)
        if commit in revisions:
            return commit
        self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return None

    def send_facts(self, repo, revision, action):
        commit = self.commit_of(repo, revision)
        if commit is None:
            return
        files = self.hub.revisions[repo][commit]
        if action == "tree":
            entries = []
            for path, content in files.items():
                entries.append(
                    {"type": "file", "path": path, "size": len(content), "oid": commit}
                )
            self.answer(entries)
            return
        self.answer(
            {
                "id": repo.split("/", 1)[1],
                "sha": commit,
                "private": repo in self.hub.private,
                "tags": [],
                "siblings": [{"rfilename": path} for path in files],
            }
        )

    def send_file(self, repo, revision, path):
        commit = self.commit_of(repo, revision)
        if commit is None:
            return
        headers = [("X-Repo-Commit", commit)]
        content = self.hub.revisions[repo][commit].get(path)
        if content is None:
            headers.append(("X-Error-Code", "EntryNotFound"))
            self.answer({"error": "Entry not found"}, 404, headers)
        else:
            headers.append(("etag", f'"{sha256(content)}"'))
            self.answer(content, headers=headers)
