"""The page of ``--html``: what is in it, and in a browser what it shows."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_backbones import OPTIONS
from tiny_subjects import subject

from mmvitbackbones.seeing.attention import View, watch_blocks
from mmvitbackbones.seeing.encoding import encode
from mmvitbackbones.seeing.page import write_page

# For a person to judge.
SHOTS = Path(__file__).parents[2] / 'work_dirs' / 'page_screenshots'


def decoded(view, heads, data, row, column):
    """Weights of a stored query, (heads, K)."""
    first = (row * view['stored'][1] + column) * heads
    keys = sum(
        (k['window'][0] + sum(k['rows'])) * (k['window'][1] + sum(k['columns']))
        for k in view['keys']
    )
    start = view['weights'] + first * keys
    shares = np.frombuffer(data[start : start + heads * keys], np.uint8).reshape(heads, keys) / 255
    start = view['largest'] + 4 * first
    return shares**2 * np.frombuffer(data[start : start + 4 * heads], '<f4')[:, None]


@pytest.mark.parametrize('family', OPTIONS)
def test_weights_survive_to_a_part_in_two_hundred(family):
    looked_at, attentions = subject(family), []
    watch_blocks(looked_at.backbone, looked_at.image, attentions.append)
    stages, data = encode(looked_at, limit=10**7)
    for attention in attentions:
        stage = stages[attention.stage]
        assert (stage['step'], stage['stride']) == (1, attention.stride)
        block = stage['blocks'][attention.block]
        for view, stored in zip(attention.views, block['views']):
            assert stored['name'] == view.name
            if isinstance(view, View):
                row, column = view.grid[0] - 1, view.grid[1] // 2
                window, number = view.window_of(row, column)
                expected = view.weights[window, :, number].numpy()
                found = decoded(stored, block['heads'], data, row, column)
                np.testing.assert_allclose(found, expected, atol=expected.max() / 200)


@pytest.mark.parametrize('family', OPTIONS)
def test_fewer_queries_where_all_are_too_many(family):
    whole = len(encode(subject(family), limit=10**7)[1])
    stages, data = encode(subject(family), limit=whole * 2 // 3)
    assert len(data) <= whole * 2 // 3
    assert max(stage['step'] for stage in stages) > 1
    with pytest.raises(ValueError, match='smaller --size'):
        encode(subject(family), limit=10)


def test_page_is_one_file(tmp_path):
    """That asks no other for anything, whatever a checkpoint is called."""
    name = 'a</script><b>&'
    write_page([subject('RMT', name=name)], (0.5, 0.5), tmp_path / 'deep' / 'page.html')
    page = (tmp_path / 'deep' / 'page.html').read_text()
    assert page.count('</script>') == 2
    assert not re.search(r'(src|href)="(?!data:)|https?://', page)
    found = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert found['backbones'][0]['name'] == name and '<title>a&lt;/script&gt;' in page


@pytest.fixture(scope='module')
def browser():
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser'))), None)
    if chromium is None:
        pytest.skip('there is no chromium (Debian: apt-get install chromium)')
    playwright = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    with playwright.sync_playwright() as play:
        started = play.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield started
        started.close()


class Opened:
    """A page in the browser, and what it complained of."""

    def __init__(self, browser, path, width, scheme):
        self.page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        self.said = []
        self.page.on(
            'console', lambda message: message.type == 'error' and self.said.append(message.text)
        )
        self.page.on('pageerror', lambda error: self.said.append(str(error)))
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.asked = []
        self.page.goto(path.as_uri())
        self.page.wait_for_selector('body[data-ready]')

    def click(self, number, x, y):
        """At parts of width and height of a canvas's image."""
        canvas = self.page.locator('figure > canvas:visible').nth(number)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        right, bottom = (
            float(canvas.get_attribute(f'data-{side}')) for side in ('right', 'bottom')
        )
        self.page.mouse.click(
            box['x'] + box['width'] * x * 96 / right, box['y'] + box['height'] * y * 64 / bottom
        )

    def colour(self, number, x, y):
        """Of a pixel of the image on a canvas."""
        return self.page.evaluate(
            """([number, x, y]) => {
              const canvas = [...document.querySelectorAll('figure > canvas')]
                .filter((each) => each.offsetParent)[number];
              const scale = canvas.width / canvas.dataset.right;
              return [...canvas.getContext('2d').getImageData(x * scale, y * scale, 1, 1).data];
            }""",
            [number, x, y],
        )[:3]


@pytest.mark.sweep
@pytest.mark.parametrize('family', OPTIONS)
@pytest.mark.parametrize('width, scheme', [(1280, 'light'), (400, 'dark')])
def test_page_in_a_browser(family, width, scheme, browser, tmp_path):
    """Load, click: the right cells are lit and the shares are those of the model; another block."""
    looked_at = subject(family)
    write_page([looked_at, subject(family, name='another')], (0.5, 0.5), tmp_path / 'page.html')
    opened = Opened(browser, tmp_path / 'page.html', width, scheme)
    page = opened.page
    attentions = []
    watch_blocks(looked_at.backbone, looked_at.image, attentions.append)

    page.get_by_label('stage 2', exact=True).click()
    opened.click(0, 0.4, 0.3)
    x, y = 0.4 * 96, 0.3 * 64
    for block in (0, 1):
        if block:
            page.keyboard.press('b')
        attention = next(a for a in attentions if (a.stage, a.block) == (1, block))
        view = next(view for view in attention.views if view.name.startswith('token'))
        parts = view.at(y, x)
        said = page.inner_text('#status').split('another')[0]
        assert f'stage 2, block {block + 1}, mean of {attention.heads} heads' in said
        for part in parts:
            found = re.search(rf'{part.name} ([\d.]+) %', said)
            assert abs(float(found[1]) - 100 * float(part.sums.mean())) < 1
        # On the first canvas: cells that are seen are coloured, all others are grey.
        shown = [part for part in parts if part.cell == parts[0].cell]
        seen = torch.stack([~part.values[0].isnan() for part in shown]).any(0)
        cell = parts[0].cell[0]
        query = [p // attention.stride * attention.stride for p in (y, x)]
        for row, column in np.ndindex(*seen.shape):
            middle = (row + 0.5) * cell, (column + 0.5) * cell
            in_image = middle[0] < 64 and middle[1] < 96
            if in_image and all(abs(m - q) > 2 * cell for m, q in zip(middle, query)):
                red, green, blue = opened.colour(0, middle[1], middle[0])
                assert (red == green == blue) != bool(seen[row, column]), (row, column)

    before = page.inner_text('#status')
    for key in ('ArrowDown', 'h', 'v', 'Shift+V', 's'):
        page.keyboard.press(key)
        assert (after := page.inner_text('#status')) != before or key in ('v', 'Shift+V')
        before = after
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.tagName') in ('BUTTON', 'CANVAS')
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert opened.said == [] and all(
        url.startswith(('file:', 'data:', 'blob:')) for url in opened.asked
    )
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f'{family}_{width}_{scheme}.png', full_page=True)
    page.close()
