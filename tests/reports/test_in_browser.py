"""A run's page in a real browser, as wide as a desk's screen and a phone's, light and dark. Skipped without Chromium."""

import json
import re
import shutil
import subprocess

import pytest
from conftest import TINY_RECIPE, TINY_SPEC

from kerasgreedy.train.entry_points import train_spec

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
# In a frame of the wanted width, since a window has a least one; what is seen ends up in the title.
FRAME = """<!doctype html><title>waiting</title>
<body style='margin:0'><iframe src='report.html' width='WIDTH' height='900'></iframe>
<script>
addEventListener('load', () => {
  const inner = document.querySelector('iframe').contentDocument, body = inner.body;
  const style = getComputedStyle(body);
  const outside = [...inner.querySelectorAll('body *')].filter(
    element => element.getBoundingClientRect().right > WIDTH + 1 && !element.closest('.wide'));
  const small = [...inner.querySelectorAll('figure > svg')].filter(
    picture => !picture.closest('details:not([open])') &&
      picture.getBoundingClientRect().width < 250);
  const broken = [...inner.images].filter(image => !image.naturalWidth);
  document.title = JSON.stringify({scroll: inner.documentElement.scrollWidth, ground: style.backgroundColor, ink: style.color,
    outside: outside.map(element => element.tagName + ': ' + element.textContent.slice(0, 60)),
    small: small.length, pictures: inner.images.length,
    charts: inner.querySelectorAll('figure > svg').length, broken: broken.length});
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a run that removed filters, so that all parts of a page are there."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "s.yaml").write_text(TINY_SPEC)
    (folder / "r.yaml").write_text(TINY_RECIPE)
    sets = ["training.epochs=1", "prune.keep=0.5"]
    run = train_spec(folder / "s.yaml", folder / "r.yaml", sets, workdir=folder / "a_run_with_a_rather_long_name", quiet=True)
    return run.workdir / "report.html"


def seen(page, tmp_path, width, dark):
    shutil.copy(page, tmp_path / "report.html")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    words = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path}",
    ]
    words += ["--virtual-time-budget=4000", f"--window-size={max(width, 600)},1000", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run([*words, "--dump-dom", f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120)
    (title,) = re.findall(r"<title>(\{.*?\})</title>", done.stdout) or [done.stdout[:300] + done.stderr[-300:]]
    return json.loads(title.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


def luminance(colour):
    """Relative, of `rgb(r, g, b)` (WCAG 2)."""
    shades = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shades]
    return sum(weight * s for weight, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_fits_its_screen_and_can_be_read(page, tmp_path, width, dark):
    """Nothing but tables that scroll in their own box is wider than the screen; text stands out by 7 to 1."""
    found = seen(page, tmp_path, width, dark)
    assert found["scroll"] <= width and found["outside"] == [] and found["broken"] == 0, found
    assert found["charts"] >= 2 and found["pictures"] >= 1 and found["small"] == 0, found
    ground, ink = luminance(found["ground"]), luminance(found["ink"])
    assert (ground < ink) == dark
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7
