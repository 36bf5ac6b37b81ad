"""The pages as axe-core reads them, which looks for what shuts people out: in a browser, light and dark, two widths."""

import fcntl
import html
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.io import read_json
from aem_harness.harness.report.formats import to_html
from aem_harness.harness.report.html import build_report
from aem_harness.harness.report.overview import build_overview
from aem_harness.harness.report.paper import paper_table

pytestmark = [pytest.mark.network, pytest.mark.extended]

AXE = "axe-core-4.11.0"
WIDTHS = (400, 1280)
# The browser's setting that pages read as prefers-color-scheme.
THEMES = {"light": "--blink-settings=preferredColorScheme=1", "dark": "--blink-settings=preferredColorScheme=0"}
GRAVE = ("serious", "critical")

# In each page: what axe finds, told to the page around it. `ready` waits for a trajectory that the address asks for.
LOOK = """
const ready = async () => {
  for (let i = 0; i < 300 && location.hash && !document.querySelector("#reader .message"); i++)
    await new Promise((go) => setTimeout(go, 20));
};
addEventListener("load", async () => {
  await ready();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const found = await axe.run(document, { iframes: false });
  const violations = found.violations.map((one) =>
    ({ id: one.id, impact: one.impact, help: one.help, where: one.nodes.map((node) => node.html.slice(0, 200)) }));
  const wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  parent.postMessage({ dark, width: innerWidth, wider, violations, passed: found.passes.map((one) => one.id) }, "*");
});
"""
# Around them: one frame for each page and width, since a headless window is never as narrow as a telephone.
AROUND = """<!doctype html><meta name="color-scheme" content="light dark"><title>frames</title>
<script>
const FRAMES = FRAMES_HERE;
const seen = {}; let left = FRAMES.length;
addEventListener("message", (event) => {
  const frame = [...document.querySelectorAll("iframe")].find((one) => one.contentWindow === event.source);
  seen[frame.title] = event.data;
  if (--left) return;
  document.body.innerHTML = "<pre id=seen></pre>";
  document.body.firstChild.textContent = JSON.stringify(seen);
});
const next = () => FRAMES.forEach(([title, src, width]) => document.body.append(
  Object.assign(document.createElement("iframe"), { title, src, width, height: 900 })));
addEventListener("load", next);
</script><body></body>
"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, fetched by npm on first use and kept outside the repository."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("npm is not installed, which fetches axe-core")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aem-harness"
    cache.mkdir(parents=True, exist_ok=True)
    script = cache / f"{AXE}.js"
    with (cache / f"{AXE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not script.exists():
            words = [npm, "pack", "--silent", "@".join(AXE.rsplit("-", 1)), "--pack-destination", str(cache)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
            packed = cache / f"{AXE}.tgz"
            if done.returncode or not packed.exists():
                pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
            with tarfile.open(packed) as tar:
                inside = tar.extractfile("package/axe.min.js")
                assert inside
                script.write_bytes(inside.read())
            packed.unlink()
    return script.read_text()


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if not found:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def pages(
    axe: str, comparison: Comparison, outcomes: Outcomes, runs: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Addresses of the pages, each with axe in it: report, report with two trajectories, overview, table."""
    folder = tmp_path_factory.mktemp("pages")
    task = read_json(runs[0] / "audit.json")[0]["instance_id"]
    overview, _ = build_overview(runs)
    table = to_html(paper_table(comparison))
    made = {
        "report": build_report(comparison, outcomes, folder / "report.html"),
        "overview": overview.replace("style-src", "script-src 'unsafe-inline'; style-src"),
        "table": f'<!doctype html><html lang="en"><title>A table</title><body><main><h1>T</h1>{table}</main></body>',
    }
    for name, text in made.items():
        script = f"<script>{axe}</script><script>{LOOK}</script>"
        (folder / f"{name}.html").write_text(text.replace("</body>", f"{script}</body>"))
    arms = [arm.arm for arm in comparison.arms]
    addresses = {name: (folder / f"{name}.html").as_uri() for name in made}
    return addresses | {"reader": f"{addresses['report']}#/{task}/{arms[0]}:0/{arms[1]}:1"}


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    pages: dict[str, str], browser: str, tmp_path: Path, theme: str
) -> None:
    frames = [(f"{name} {width}", address, width) for name, address in pages.items() for width in WIDTHS]
    (tmp_path / "around.html").write_text(AROUND.replace("FRAMES_HERE", json.dumps(frames)))
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", THEMES[theme], "--window-size=1400,900"]
    words += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--allow-file-access-from-files",
        "--virtual-time-budget=60000",
    ]
    words += ["--dump-dom", (tmp_path / "around.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, (done.stdout[-1000:], done.stderr[-2000:])
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert set(seen) == {title for title, _, _ in frames}
    for title, one in seen.items():
        assert {"color-contrast", "document-title", "html-has-lang"} <= set(one["passed"]), title
        assert one["dark"] is (theme == "dark"), title
        assert one["width"] == int(title.split()[1])
        assert one["wider"] <= 0 or title.startswith("table"), title  # a fragment, styled by the page that takes it
        assert [violation for violation in one["violations"] if violation["impact"] in GRAVE] == [], title
