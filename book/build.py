"""The strict build of the whole site, run by `kit.py book`: generated pages, Jupyter Book, checks.

A warning, a missing index.html, a page outside the table of contents or a fault that check_site.py
finds: each fails the build. What the pages say stands elsewhere in this folder.
"""

import re
import sys
import webbrowser
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import rmtree

import yaml

from kit import ROOT, Problem, environment, guard, say, watch

BUILD = ROOT / "_build"
SITE = BUILD / "html"
PAGES = {".md", ".rst", ".ipynb"}


def main() -> int:
    python("Writing the generated pages", "book/generate.py")
    if orphans := pages_outside_toc():
        raise Problem(f"add to _toc.yml or remove what no page leads to: {', '.join(orphans)}.")
    build_site()
    python("Checking the site", "book/check_site.py", str(SITE))
    say("The book is in _build/html/index.html.")
    if "--serve" in sys.argv:
        serve_site()
    return 0


def python(label: str, *arguments: str) -> str:
    """Run this Python quietly and return what it said; raises Problem if it fails."""
    command = [sys.executable, *arguments]
    code, output = watch(label, command, environment(Path(sys.prefix)))
    if code:
        print(output, file=sys.stderr)
        raise Problem(f"the book was not built: mend what is shown above ({label.lower()}).")
    return output


def pages_outside_toc() -> list[str]:
    """Pages of the book, lessons and landing pages that the table of contents leaves out."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = {re.sub(r"\.(md|rst|ipynb)$", "", name) for name in named_files(toc)}
    files = [*(ROOT / "book").rglob("*"), *(ROOT / "notebooks").rglob("*")]
    files += [page for page in ROOT.glob("*.md") if not page.stem.isupper()]  # not README and such
    pages = [file.relative_to(ROOT) for file in files if file.suffix in PAGES]
    shown = [page for page in pages if not any(part[0] in "._" for part in page.parts)]
    return sorted(p.as_posix() for p in shown if p.with_suffix("").as_posix() not in listed)


def named_files(toc: object) -> list[str]:
    """Every `root` and `file` in a table of contents, however deep."""
    if isinstance(toc, list):
        return [name for part in toc for name in named_files(part)]
    if not isinstance(toc, dict):
        return []
    named = [str(value) for key, value in toc.items() if key in ("root", "file")]
    return named + [name for value in toc.values() for name in named_files(value)]


def build_site() -> None:
    for folder in (SITE, BUILD / ".doctrees", BUILD / "jupyter_execute"):
        # Sphinx repeats no warning of a page that it does not read again.
        rmtree(folder, ignore_errors=True)
    book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", book, "build", ".", "-W", "-n", "--keep-going"]
    code, output = watch("Building the book", command, environment(Path(sys.prefix)))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "book.log").write_text(output, encoding="utf-8")
    warnings = [line for line in output.splitlines() if re.search("WARNING|ERROR|CRITICAL", line)]
    if code or warnings:
        print("\n".join(warnings) or output, file=sys.stderr)
        raise Problem("the book has the faults shown above (the whole log: _build/book.log).")
    if not (SITE / "index.html").exists():
        raise Problem("the build made no _build/html/index.html; _build/book.log may tell why.")


class Pages(SimpleHTTPRequestHandler):
    """Serves the site with the types that a module or a worker needs, whatever the system says."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing: a reader wants the pages, not their log."""


def serve_site() -> None:
    pages = partial(Pages, directory=str(SITE))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", 8000), pages)
    except OSError:  # another program has that port: any free one will do
        server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    address = f"http://127.0.0.1:{server.server_port}/"
    say(f"Showing it at {address}. Ctrl-C in this window ends that.")
    webbrowser.open(address)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(guard(main, child=True))
