"""Where dev.py writes: free names, full disks, one server in a folder, and nothing left over."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import psutil
import pytest
from PIL import Image, ImageChops

from devtools.run import base as bases
from devtools.run import demo, example_pictures, home, place, serve, server, stop
from devtools.run.client import ComfyClient, HostError
from devtools.run.home import ROOT, Problem
from devtools.run.host import Host
from devtools.run.server import LIVE_PREVIEWS, ComfyServer

posix = pytest.mark.skipif(os.name != "posix", reason="signals and modes")
FULL = OSError(28, "No space left on device")

MAIN = """
import argparse, http.server, shutil, sys
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--base-directory", type=Path)
given, _ = parser.parse_known_args()
temp = given.base_directory / "temp"
shutil.rmtree(temp, ignore_errors=True)
temp.mkdir()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            sys.stderr.write("the last words\\n")
            sys.stderr.flush()
            import os
            os._exit(3)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}" if self.path == "/system_stats" else b"<html>no JSON</html>")
    def do_POST(self):
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"500: Internal Server Error\\n\\nServer got itself in trouble")
http.server.HTTPServer(("127.0.0.1", given.port), Answer).serve_forever()
"""
"""A program that empties its temp folder and answers, as ComfyUI does."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host that starts at once, and a data folder of one's own."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home ü 😀"))
    monkeypatch.setattr(server, "has_gpu", lambda python: True)
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text(MAIN)
    return Host(folder, "test", ours=False)


def run_server(host: Host, base: Path | None = None) -> ComfyServer:
    return ComfyServer(sys.executable, host, base=base)


def put(arguments: tuple[Path, Path, int]) -> str:
    """Place a video of its own."""
    folder, out, number = arguments
    source = folder / f"{number}.mp4"
    source.write_bytes(str(number).encode() * 1000)
    return str(place.place(source, out, "a cat-3.mp4"))


@pytest.mark.parametrize("links", [True, False])
def test_demos_that_end_together_lose_no_video(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on exFAT
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    (tmp_path / "out").mkdir()
    tasks = [(tmp_path, tmp_path / "out", number) for number in range(1, 25)]
    with ThreadPoolExecutor(8) as pool:  # not forks, which inherit locks that other tests' threads may hold
        placed = list(pool.map(put, tasks))
    videos = sorted((tmp_path / "out").iterdir())
    assert sorted(placed) == [str(video) for video in videos] and len(videos) == 24
    assert sorted(video.read_bytes()[:1000] for video in videos) == sorted(
        (str(number).encode() * 1000)[:1000] for number in range(1, 25)
    )
    names = {"a cat-3.mp4", *(f"a cat-3-{number}.mp4" for number in range(2, 25))}
    assert {video.name for video in videos} == names


def test_no_link_is_followed_and_no_file_overwritten(tmp_path: Path) -> None:
    source, out, target = tmp_path / "made.mp4", tmp_path / "out", tmp_path / "precious"
    source.write_bytes(b"video")
    out.mkdir()
    target.write_bytes(b"precious")
    (out / "clip.mp4").symlink_to(target)
    (out / "clip-2.mp4").symlink_to(tmp_path / "absent")
    (out / "clip.mp4.tmp").symlink_to(target)
    assert place.place(source, out, "clip.mp4") == (out / "clip-3.mp4").resolve()
    assert target.read_bytes() == b"precious" and not (tmp_path / "absent").exists()


@posix
def test_the_video_can_be_read_by_those_who_may(tmp_path: Path) -> None:
    source = tmp_path / "made.mp4"
    source.write_bytes(b"video")
    old = os.umask(0o022)
    try:
        assert place.place(source, tmp_path, "clip.mp4").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def full(*_: object, **__: object) -> None:
    raise FULL


def test_a_full_disk_costs_no_video(fake: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    running = run_server(fake).start()
    saved = running.output_dir / "video" / "x.mp4"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"video")
    monkeypatch.setattr(place.shutil, "copyfile", full)
    with pytest.raises(
        Problem, match=r"^--out: .*out \(No space left on device\): it is kept as (.*x\.mp4);"
    ) as error:
        demo._deliver(running, saved, out, "clip.mp4")
    running.stop()
    kept = Path(str(error.value).split("kept as ")[1].split(";")[0])
    assert kept.read_bytes() == b"video" and not list(out.iterdir())
    run_server(fake).stop()
    assert kept.exists(), "it is no leftover"


def test_a_full_disk_of_the_host_is_told_with_what_to_do(fake: Host) -> None:
    def fail(*_: object, **__: object) -> dict:
        raise HostError("SaveVideo: [Errno 28] No space left on device: 'x'")

    with pytest.raises(
        HostError, match=r"^SaveVideo: .* set MICROCINEMA_HOME to a folder on another disk\.$"
    ):
        demo._run(SimpleNamespace(run=fail), {}, {}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["open", "mkdir"])
def test_a_base_that_cannot_be_written_is_named(
    name: str, fake: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = run_server(fake)
    with (
        monkeypatch.context() as patched,
        pytest.raises(Problem, match=r"host-.* cannot be written \(No space left"),
    ):
        patched.setattr(starting, "_create_folders", full)
        starting.start()
    assert not starting.base.exists()


def test_a_data_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    (tmp_path / "x.lock").mkdir()  # opens for nobody, whoever runs the tests
    with (
        pytest.raises(Problem, match=r"x\.lock cannot be written \(Is a directory\).* set MICROCINEMA_HOME"),
        home.lock("x"),
    ):
        pass
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        Problem, match=r"runs cannot be written \(.*\): make room there, or set MICROCINEMA_HOME"
    ):
        bases.temporary_base()
    (tmp_path / "runs").unlink()
    monkeypatch.setattr(bases.tempfile, "mkdtemp", full)
    with pytest.raises(Problem, match=r"runs cannot be written \(No space left"):
        bases.temporary_base()


@posix
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_log_on_a_full_disk_costs_nothing(stream: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    code = f"""
import sys
from pathlib import Path
sys.{stream} = open("/dev/full", "w")
import dev
from devtools.run import demo, home
home.say("a note")
dev.run = lambda argv: demo._print_result({{"video": "/out/clip.mp4"}})
sys.exit(dev.main())
"""
    with Path("/dev/full").open("w") as disk:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: disk}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=60, **streams)  # type: ignore[call-overload]
    if stream == "stdout":
        assert done.returncode != 0 and "The video is /out/clip.mp4, but" in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert json.loads(done.stdout) == {"video": "/out/clip.mp4"}


def test_two_servers_do_not_share_a_folder(fake: Host, tmp_path: Path) -> None:
    base = tmp_path / "serve"
    with run_server(fake, base) as first:
        (base / "temp" / "preview.png").write_bytes(b"first")
        with pytest.raises(
            HostError, match=rf"Another ComfyUI runs in .*serve, at {first.url}: use that one, or stop it"
        ):
            run_server(fake, base).start()
        assert (base / "temp" / "preview.png").read_bytes() == b"first"
        with urlopen(first.url + "/system_stats") as answer:
            assert answer.status == 200
        with run_server(fake) as other:
            assert other.base != base
    left = base / "output" / "video" / ".microcinema-x.unfinished"
    (left / "files").mkdir(parents=True)
    (left / ".lock").touch()
    with run_server(fake, base):
        assert not left.exists(), "what killed writers left is removed at the next start"


@posix
def test_the_folder_is_free_once_the_server_has_ended_however(fake: Host, tmp_path: Path) -> None:
    """The lock is the server's too: it lasts until the server has ended, if dev.py is killed before it."""
    base = tmp_path / "serve"
    code = """
import sys, time
from pathlib import Path
from devtools.run import server
from devtools.run.host import Host
server.has_gpu = lambda python: True
running = server.ComfyServer(sys.executable, Host(Path(sys.argv[1]), "test", ours=False), base=Path(sys.argv[2]))
print(running.start().process.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(fake.path), str(base)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # it does not notice that its parent has gone
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    process.kill()
    process.wait()
    try:
        with pytest.raises(HostError, match="Another ComfyUI runs in"):
            run_server(fake, base).start()
    finally:
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while True:
        try:
            with run_server(fake, base):
                break
        except HostError:
            assert time.monotonic() < until
            time.sleep(0.1)


@contextlib.contextmanager
def killed_run(fake: Host) -> Iterator[Path]:
    """The base directory of a temporary server whose processes were killed."""
    started = run_server(fake).start()
    assert started.process is not None
    started.process.kill()
    started.process.wait()
    assert started._lock is not None
    os.close(started._lock)
    yield started.base


def test_what_killed_runs_left_is_removed_at_the_next_start(fake: Host) -> None:
    with killed_run(fake) as left, run_server(fake) as running:
        assert not left.exists() and running.base.exists()
        begun, kept = bases.temporary_base(), running.base.parent / "kept-video"
        kept.mkdir()
        run_server(fake).stop()
        assert running.base.exists() and begun.exists() and kept.exists()
        os.utime(begun, (0, 0))
        os.utime(running.base, (0, 0))
        run_server(fake).stop()
        assert running.base.exists() and not begun.exists(), "a server that has run for days is no leftover"


@posix
@pytest.mark.parametrize("deaf", [False, True])
def test_stop_ends_the_server_that_was_kept(
    deaf: bool, fake: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that does not listen to SIGTERM; what people made with it stays."""
    monkeypatch.setattr(stop, "_WAIT", 1.0)
    if deaf:
        (fake.path / "main.py").write_text(
            "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + MAIN
        )
    with pytest.raises(Problem, match=r"^No ComfyUI of dev\.py runs in .*serve\.$"):
        stop.main(argparse.Namespace())
    code = """
import sys
from pathlib import Path
from devtools.run import demo, server
from devtools.run.host import Host
server.has_gpu = lambda python: True
demo._server(Host(Path(sys.argv[1]), "test", ours=False), keep=True).start()
"""
    done = subprocess.run([sys.executable, "-c", code, str(fake.path)], cwd=ROOT, timeout=60)
    assert done.returncode == 0
    running = bases.running_in(bases.kept_base())
    assert running is not None
    with urlopen(running.url + "/system_stats") as answer:
        assert answer.status == 200
    words = psutil.Process(running.process).cmdline()
    assert words[words.index("--preview-method") + 1] == "auto"
    made = bases.kept_base() / "output" / "made.mp4"
    made.write_bytes(b"video")
    stop.main(argparse.Namespace())
    assert f"ComfyUI at {running.url} has ended" in capsys.readouterr().err
    with pytest.raises(OSError):
        urlopen(running.url + "/system_stats", timeout=5)
    assert made.read_bytes() == b"video"
    with pytest.raises(Problem, match=r"^No ComfyUI of dev\.py runs in"):
        stop.main(argparse.Namespace())


@pytest.mark.parametrize("options", [[], ["--preview-method", "none", "--lowvram"]])
def test_serve_starts_with_previews_and_pictures(
    options: list[str], fake: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own options come last, so that they count; the user's own pictures stay."""
    own = bases.kept_base() / "input" / "example.png"
    if options:
        own.parent.mkdir(parents=True)
        own.write_bytes(b"mine")
    commands: list[list[str]] = []

    def look(url: str) -> None:
        running = bases.running_in(bases.kept_base())
        assert running is not None and running.url == url
        commands.append(psutil.Process(running.process).cmdline())
        assert {file.name for file in own.parent.iterdir()} == set(example_pictures.PICTURES)
        psutil.Process(running.process).kill()

    monkeypatch.setattr(serve, "find_host", lambda given: fake)
    monkeypatch.setattr(serve.webbrowser, "open", look)
    with contextlib.suppress(HostError):
        serve.main(argparse.Namespace(comfyui=None, no_browser=False, options=options))
    (words,) = commands
    assert words[-2 - len(options) :] == [*LIVE_PREVIEWS, *options]
    if options:
        assert own.read_bytes() == b"mine"


def test_the_example_pictures_differ(tmp_path: Path) -> None:
    example_pictures.add_example_pictures(tmp_path)
    opened = [Image.open(tmp_path / name) for name in ("example.png", "example_2.png")]
    assert [picture.size for picture in opened] == [(512, 512)] * 2
    assert ImageChops.difference(*opened).getbbox() is not None


def test_model_folders_of_any_name_are_found(fake: Host) -> None:
    import yaml

    folder = home.home() / "models" / "upscale_models"
    folder.mkdir(parents=True)
    with run_server(fake) as running:
        text = (running.base / "model_paths.yaml").read_text(encoding="utf-8")
    read = yaml.safe_load(text)["home"]
    assert Path(read["base_path"], read["upscale_models"]).samefile(folder)


def test_what_the_host_answers_besides_json_is_one_sentence(fake: Host) -> None:
    with run_server(fake) as running:
        client = ComfyClient(running.url)
        with pytest.raises(
            HostError, match=r"^ComfyUI answered 500 .*: 500: Internal Server Error Server got itself"
        ):
            client.submit({})
        with pytest.raises(HostError, match="ComfyUI does not respond at"):
            client.get("/odd")
        with pytest.raises(HostError, match="ComfyUI answered 500"):
            client.interrupt()


def test_a_server_that_ends_by_itself_is_told(fake: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(url: str) -> None:
        with contextlib.suppress(OSError, Exception):
            urlopen(url + "/end", timeout=5)

    monkeypatch.setattr(serve, "find_host", lambda given: fake)
    monkeypatch.setattr(serve.webbrowser, "open", end)
    with pytest.raises(HostError, match="ComfyUI ended while running: the last words"):
        serve.main(argparse.Namespace(comfyui=None, no_browser=False, options=[]))
