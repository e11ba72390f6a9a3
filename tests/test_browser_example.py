"""The browser example: what can be checked without a browser, and under `./dev nightly` the page itself in Chromium."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from queue import Queue
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import numpy as np
import onnx
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "browser"
TOLERANCE = 1e-4
"""Of the largest logit, as the page allows itself: sums in another order."""


def example(name: str) -> ModuleType:
    """One of the example's scripts as a module."""
    spec = util.spec_from_file_location(f"browser_example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_names_packages_and_versions_and_no_address() -> None:
    text = (FOLDER / "package-lock.json").read_text()
    assert "http" not in text
    assert "resolved" not in text
    locked = json.loads(text)["packages"]
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert all(locked[f"node_modules/{name}"]["version"] == version for name, version in wanted.items())
    assert all("integrity" in entry for name, entry in locked.items() if name)


def test_the_page_takes_nothing_from_elsewhere() -> None:
    for path in (*FOLDER.glob("*.html"), *FOLDER.glob("*.css"), *FOLDER.glob("*.mjs")):
        assert not re.search(r"https?:|//[a-z]+\.", path.read_text(encoding="utf-8")), path


def test_the_server_isolates_the_page_and_names_wasm_as_what_it_is(tmp_path: Path) -> None:
    for name in ("a.wasm", "a.mjs", "index.html"):
        (tmp_path / name).write_bytes(b"x")
    with example("serve").make_server(folder=tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == "127.0.0.1"
        for name, kind in {"a.wasm": "application/wasm", "a.mjs": "text/javascript", "": "text/html"}.items():
            with urlopen(f"http://127.0.0.1:{server.server_port}/{name}", timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith(kind)
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
                assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        server.shutdown()


def tool(*names: str) -> str:
    """The first of these programs that is here."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed")


def node(code: str, *words: str) -> bytes:
    done = subprocess.run([tool("node"), "--input-type=module", "-e", code, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("size", [(64, 40), (300, 200), (201, 50), (37, 123), (7, 5)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_page_resizes_as_pillow_does_to_the_last_bit(size: tuple[int, int], interpolation: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (123, 201, 3), dtype=np.uint8)
    picture = image.fromarray(pixels)
    (tmp_path / "pixels").write_bytes(picture.convert("RGBA").tobytes())
    code = f"""
        import fs from "fs";
        import {{ resize }} from {json.dumps((FOLDER / "resample.mjs").as_uri())};
        const data = new Uint8ClampedArray(fs.readFileSync({json.dumps(str(tmp_path / "pixels"))}));
        process.stdout.write(resize({{ data, width: 201, height: 123 }}, {size[0]}, {size[1]}, "{interpolation}").data);
    """
    found = np.frombuffer(node(code), np.uint8).reshape(size[1], size[0], 3)
    np.testing.assert_array_equal(found, np.asarray(picture.resize(size, getattr(image.Resampling, interpolation.upper()))))


@pytest.mark.browser
def test_the_page_reads_the_metadata_that_a_file_has_and_refuses_what_is_no_model(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    model = onnx.helper.make_model(graph)
    metadata = {"mean": "[0.5, 0.25]", "Klasse": "Möwe", "empty": "", "long": "x" * 70_000}
    onnx.helper.set_model_props(model, metadata)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    code = f"""
        import fs from "fs";
        import {{ readMetadata }} from {json.dumps((FOLDER / "metadata.mjs").as_uri())};
        const bytes = new Uint8Array(fs.readFileSync({json.dumps(str(path))}));
        const refused = [bytes.subarray(0, bytes.length - 3), new TextEncoder().encode("<!doctype html>")].map((bad) => {{
          try {{ readMetadata(bad); return false; }} catch {{ return true; }}
        }});
        console.log(JSON.stringify([readMetadata(bytes), refused]));
    """
    assert json.loads(node(code)) == [metadata, [True, True]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page says of itself in Chromium, with freshly exported models; and the models' folder."""
    chromium, npm = tool("chromium", "chromium-browser", "google-chrome"), tool("npm")
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("browser") / "example"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules", "models"))
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    subprocess.run([sys.executable, folder / "prepare.py"], check=True, capture_output=True)
    serve, said = example("serve"), Queue[dict[str, Any]]()

    class Listener(serve.Handler):  # type: ignore[name-defined]
        """Takes the page's report."""

        def do_POST(self) -> None:  # noqa: N802
            said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    with serve.make_server(folder=folder, handler=Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = subprocess.Popen(
            [
                chromium,
                "--headless=new",
                "--no-sandbox",  # the test may run as root in a container; the page is ours
                "--disable-gpu",
                "--no-first-run",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing from elsewhere
                f"--user-data-dir={folder / 'profile'}",
                f"http://127.0.0.1:{server.server_port}/?report=report",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield {"report": said.get(timeout=300), "models": folder / "models"}
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()


@pytest.mark.browser
def test_both_models_run_in_threads_on_an_isolated_page(page: dict[str, Any]) -> None:
    report = page["report"]
    assert "error" not in report, report
    assert report["isolated"] is True
    assert report["threads"] >= 1
    assert [result["file"] for result in report["results"]] == ["ghostnetv2.onnx", "affnet.onnx"]


@pytest.mark.browser
def test_logits_in_the_browser_equal_those_of_pythons_onnx_runtime(page: dict[str, Any]) -> None:
    expected = {
        entry["file"]: np.array(entry["expected"])
        for entry in json.loads((page["models"] / "index.json").read_text())["models"]
    }
    for result in page["report"]["results"]:
        logits = expected[result["file"]]
        assert len(logits) == 1000
        assert logits.std() > 0.01  # they say something
        np.testing.assert_allclose(result["logits"], logits, rtol=0, atol=TOLERANCE * np.abs(logits).max())
        assert result["equal"] is True


@pytest.mark.browser
def test_the_page_reads_how_pictures_become_inputs_from_the_files(page: dict[str, Any]) -> None:
    for result in page["report"]["results"]:
        stored = onnx.load(page["models"] / result["file"]).metadata_props
        assert result["metadata"] == {entry.key: entry.value for entry in stored}
