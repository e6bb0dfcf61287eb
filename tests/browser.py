"""Pages in a real browser, Chromium without a window."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

_FRAME = """<!doctype html><body style="margin:0"><pre id="found"></pre>
<iframe id="page" src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>
  const frame = document.getElementById("page");
  frame.addEventListener("load", () => {{
    const root = frame.contentDocument.documentElement;
    frame.contentDocument.querySelectorAll("details").forEach(one => one.open = true);
    const beyond = [...frame.contentDocument.body.querySelectorAll("*")]
      .filter(one => one.getBoundingClientRect().right > root.clientWidth + 1);
    document.getElementById("found").textContent = JSON.stringify(
      {{width: root.clientWidth, content: root.scrollWidth, beyond: beyond.map(one => one.outerHTML.slice(0, 80))}});
  }});
</script>"""


def looked_at(page: pathlib.Path, width: int, folder: pathlib.Path) -> tuple[dict, list[str]]:
    """How wide a page is in a window of some width, and what Chromium's console said.

    A window has a least width, a frame has not. The test is skipped where there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: Debian's package chromium brings one")
    frame = folder / f"frame_{width}.html"
    frame.write_text(_FRAME.format(page=page.as_uri(), width=width))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run(
        [chromium, *flags, f"--user-data-dir={folder}/profile", "--enable-logging=stderr", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert found, done.stdout[:500] + done.stderr[-2000:]
    return json.loads(found.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")), [
        line for line in done.stderr.splitlines() if "CONSOLE" in line
    ]
