"""What becomes of a message's HTML before a browser gets it."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import pytest

from labserver.web import sanitizer
from labserver.web.sanitizer import IMAGES_CHARACTERS, Sanitized, sanitized

LOGO = "data:image/png;base64,iVBORw=="
BROUGHT = {"logo": LOGO, "lo go@x": "data:image/gif;base64,R0lGODk="}
LEADS = {"href", "src", "srcset", "action", "formaction", "ping", "target", "xlink:href", "data"}
SHOWN_ALONE = {"html", "head", "meta", "title", "style", "body"}


class Reader(HTMLParser):
    """Elements and attributes of a document; it is nh3's own, so it is well formed."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def made(html: str) -> Sanitized:
    return sanitized(html, lambda identity: BROUGHT.get(identity, ""))


def body(html: str) -> str:
    return made(html).document.partition("</head><body>")[2].removesuffix("</body></html>")


def leads(html: str) -> list[tuple[str, str, str]]:
    """What in the document has an address that a browser would go to."""
    return [
        (tag, name, value)
        for tag, attributes in Reader(made(html).document).elements
        for name, value in attributes.items()
        if name in LEADS and not value.startswith("data:image/")
    ]


# -- links

WAYS_OUT = [
    '<a title=">" href="http://evil.example/" target=_self>x</a>',
    '<a href="http://evil.example/"target=_self>x</a>',
    '<a target=x target=_self href="http://evil.example/">x</a>',
    '<a target=_top x="1"target=_self href="http://evil.example/">x</a>',
    '<map name=m><area/target=_self shape=rect coords=0,0,9,9 href="http://evil.example/"></map>',
    '<A\nHREF\n=\n"http://evil.example/">x</A>',
    '<a/href="http://evil.example/"/target=_self>x',
    '<svg><a xlink:href="http://evil.example/"><text y=20>x</text></a></svg>',
    '<svg><a href="http://evil.example/"><circle r=50 /></a></svg>',
    '<a ping="http://evil.example/" href="http://evil.example/">x</a>',
    '<a href="ht\ntp://evil.example/">x</a>',
    '<a href="&#104;ttp://evil.example/">x</a>',
    '<form action="http://evil.example/"><button>x</button></form>',
    '<form><input type=submit formaction="http://evil.example/"></form>',
    '<math><maction href="http://evil.example/"><a href="http://evil.example/">x</a></maction>',
    '<base href="http://evil.example/"><a href="/">x</a>',
    '<style></style><!--</style--><a href="http://evil.example/">x</a>',
    '<noscript><p title="</noscript><a href=http://evil.example/>x</a>">',
    '<xmp><p title="</xmp><a href=http://evil.example/>x</a>">',
    "<table><a href=http://evil.example/><tr><td><a href=http://evil.example/>x",
    '<a href="javascript:alert(1)">x</a><a href="data:text/html,x">y</a>',
]


@pytest.mark.parametrize("html", WAYS_OUT)
def test_nothing_leads_out(html: str) -> None:
    assert leads(html) == []


@pytest.mark.parametrize("html", WAYS_OUT[:14])
def test_each_address_that_led_out_is_shown(html: str) -> None:
    assert any("tp://evil.example/" in address for _, address in made(html).links)


def test_a_link_shows_its_address_and_not_what_its_sender_calls_it() -> None:
    html = '<a title="http://bank.example/" href="http://evil.example/?a=1&amp;b=2">bank</a>'
    assert body(html) == '<a title="http://evil.example/?a=1&amp;b=2">bank</a>'
    assert made(html).links == [("link", "http://evil.example/?a=1&b=2")]


def test_many_and_long_addresses_are_bounded_and_the_rest_is_counted() -> None:
    shown = made(f'<a href="http://x.example/{"y" * 600}">x</a>' * 300)
    assert len(shown.links) + shown.more_links == len(Reader(shown.document).all("a"))
    longest = max((address for _, address in shown.links), key=len)
    assert len(longest) < 540
    assert longest.endswith(" characters more")
    assert len(shown.links) == 200


# -- what stays


def test_what_a_mail_is_written_with_stays() -> None:
    html = (
        '<table width="600" bgcolor="#eeeeee"><tbody><tr><td style="color:red" align="center">'
        '<font color="green" face="serif"><b>Hi</b> <i>Ben</i></font><br>'
        '<img src="data:image/png;base64,AAAA" alt="dot" width="9"></td></tr></tbody></table>'
    )
    assert body(html) == html


def test_the_style_of_the_body_and_style_sheets_stay() -> None:
    html = "<html><head><title>Sale</title><style>p > b { color: red }</style></head>"
    html += '<body style="background:#eee" bgcolor=blue onload=x()><p><b>hi</b></p></body></html>'
    assert body(html) == (
        '<style>p > b { color: red }</style><body style="background:#eee" bgcolor="blue">'
        "<p><b>hi</b></p></body>"
    )


@pytest.mark.parametrize(
    "text", ["a &lt; b", "&lt;b&gt;&lt;/b&gt;&lt;body&gt;", "<p>1 &lt;a 2</p>", 'say href="x"']
)
def test_text_stays_as_it_was(text: str) -> None:
    assert body(text) == text


def test_broken_text_is_read_as_far_as_it_can_be() -> None:
    assert body("<p title='\udc00'>\ud800x") == '<p title="?">?x</p>'
    assert body("\x00<b\x00>x") != ""
    assert made("").document.endswith("<body></body></html>")


def test_what_acts_is_left_out_and_counted() -> None:
    shown = made(
        "<script>1</script><script src=x></script><form><input><select></select></form>"
        "<iframe src=x></iframe><object data=x></object><svg><script>2</script></svg><video src=x>"
        "</video><link rel=stylesheet href=x><meta http-equiv=refresh content=0><p onclick=x>hi"
        "<img src=http://t.example/1.gif><img src=HTTP://t.example/2.gif srcset='//t.example/3 2x'>"
        "<table background=http://t.example/4><tr><td style='background:url(http://t.example/5)'>"
    )
    assert shown.notes == [
        "Left out: 1 drawing, 1 form, 2 form fields, 2 frames, 1 linked file, 1 recording, "
        "5 remote images, 3 scripts."
    ]
    kept = {name for name, _ in Reader(shown.document).elements} - SHOWN_ALONE
    assert kept == {"p", "img", "table", "tbody", "tr", "td"}
    assert body("<p>plain</p>") == "<p>plain</p>"
    assert made("<p>plain</p>").notes == []


def test_a_remote_image_shows_where_it_is_and_is_not_fetched() -> None:
    html = '<img src="http://t.example/pixel?ana" title="nothing" alt="a pixel">'
    assert body(html) == '<img title="Not shown: http://t.example/pixel?ana" alt="a pixel">'


@pytest.mark.parametrize(
    "css",
    [
        "background:url(http://evil.example/1)",
        "background:URL( 'http://evil.example/1' ) no-repeat",
        'background:url("//evil.example/1")',
        "list-style:url(\nhttp://evil.example/1\n)",
        "cursor:url(http://evil.example/1",
        "background:u\\72l(http://evil.example/1)",
        "background:\\55\\000052 \\6c(http://evil.example/1)",
        "background:\\ur\\l(http://evil.example/1)",
    ],
)
def test_style_has_no_addresses(css: str) -> None:
    for html in (f"<p style='{css.replace(chr(39), '&#39;')}'>x", f"<style>p{{{css}}}</style>"):
        assert "evil" not in body(html)
        assert made(html).notes == ["Left out: 1 remote image."]


@pytest.mark.parametrize(
    ("css", "said"),
    [
        ("@import 'http://evil.example/1.css'; p{color:red}", "1 linked file"),
        ("@IMPORT url(http://evil.example/1.css);p{color:red}", "1 linked file"),
        ('@im\\70ort "http://evil.example/1";p{color:red}', "1 linked file"),
        ("@font-face{src:url(http://evil.example/1.woff2?x)}p{color:red}", "1 remote font"),
    ],
)
def test_a_style_sheet_brings_nothing_along(css: str, said: str) -> None:
    assert "evil" not in body(f"<style>{css}</style>")
    assert "p{color:red}" in body(f"<style>{css}</style>").replace(" ", "")
    assert made(f"<style>{css}</style>").notes == [f"Left out: {said}."]


def test_a_set_of_images_is_taken_out() -> None:
    shown = made("<p style=\"background:-webkit-image-set('http://evil.example/1' 1x)\">x")
    assert "image-set" not in shown.document
    assert shown.notes == ["Left out: 1 remote image."]


def test_signs_in_a_style_sheet_stay() -> None:
    css = 'q:before{content:"\\201C \\2014 \\0022 \\a \\6D4B\\61b4"} .a\\:b{color:red}'
    assert body(f"<style>{css}</style>") == f"<style>{css}</style>"


# -- images that the message brings

SPELLED = [
    "<img src=cid:logo>",
    "<IMG SRC=' CID:logo '>",
    "<img src='cid:%6c%6fgo'>",
    "<img src=&#99;id:logo>",
    "<img srcset='cid:logo 2x'>",
    "<table background=cid:logo><tr><td>x</table>",
    "<body background=cid:logo>x",
    "<p style='background:url(cid:logo)'>x",
    '<p style="background:URL( &quot;CID:lo%67o&quot; ) no-repeat">x',
    "<style>p { background: url('cid:logo') }</style>",
]


@pytest.mark.parametrize("html", SPELLED)
def test_an_image_that_the_message_brings_is_put_in_once(html: str) -> None:
    for times in (1, 400):
        document = made(html * times).document
        assert document.count(LOGO) == 1
        assert 'src="cid:' not in document


def test_images_are_found_by_encoded_names_and_missing_ones_are_named() -> None:
    assert BROUGHT["lo go@x"] in made("<img src='cid:lo%20go%40x'>").document
    assert body("<img src=cid:no>") == '<img title="Not shown: cid:no">'
    assert body("<p style='color:red;background:url(cid:no)'>x") == (
        '<p style="color:red;background:none">x</p>'
    )


@pytest.mark.parametrize("references", [400, 17_000])
@pytest.mark.parametrize("kind", ["<img src=cid:big>", "<p style='background:url(cid:big)'>"])
def test_references_multiply_nothing(references: int, kind: str) -> None:
    big = f"data:image/png;base64,{'A' * 1_700_000}"
    html = kind * references
    asked: list[str] = []

    def image(identity: str) -> str:
        asked.append(identity)
        return big

    document = sanitized(html, image).document
    assert document.count("AAAA" * 425_000) == 1
    assert len(document) < len(big) + 2 * len(html) + 5000
    assert len(asked) < 5


def test_all_images_together_have_a_bound_and_the_rest_is_told_of() -> None:
    each = f"data:image/png;base64,{'A' * (IMAGES_CHARACTERS // 3)}"
    shown = sanitized("".join(f"<img src=cid:{n}>" for n in range(5)) * 2, lambda _: each)
    assert len(shown.document) < IMAGES_CHARACTERS + 5000
    assert shown.notes == [
        "Not shown: 3 images of the message, because all together have more than 8 MB; "
        "download them under Parts."
    ]


# -- floods

FLOODS = {
    **{unit: unit for unit in ("<a ", "<a target", "<a\n\n", "<a x=", "<a href='", "<!--", "<")},
    **{unit: unit for unit in ("<div>", "<b>", "<table>", "<a><div>", "</p>", "<li><div>")},
    **{unit: unit for unit in ("&#", "&", '"', "<style>url(", "<p style='url(", "<svg><a>")},
    "<p><font n>": "",
    "<b x=n>": "",
    "<html n>": "",
}


def flood(name: str, octets: int) -> str:
    """HTML of about so many octets."""
    if FLOODS[name]:
        return FLOODS[name] * (octets // len(name))
    number = octets // 20
    if name == "<html n>":
        return "".join(f"<html a{n} b{n}>" for n in range(number))
    if name == "<b x=n>":
        return "<p>" + "".join(f"<b class={n}>" for n in range(number)) + "<p>x" * number
    return "<p>" + "".join(f"<font size={n}>" for n in range(number)) + "<p>x" * number


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_grows_no_more_than_it_is_large_and_ends_at_a_bound(name: str) -> None:
    sizes = [len(made(flood(name, octets)).document) for octets in (16_000, 32_000, 64_000)]
    empty = len(made("").document)
    for octets, size in zip((16_000, 32_000, 64_000), sizes, strict=True):
        assert size - empty <= 7 * octets
    largest = made(flood(name, 4_000_000))
    assert largest.cut
    assert len(largest.document) < 8 * sanitizer.MOST_CHARACTERS


@pytest.mark.parametrize("html", ["<html a><html b>", "<HTML a/>", "x<body a><HtMl b></html>"])
def test_the_parser_sees_no_root_whose_attributes_it_would_collect(html: str) -> None:
    assert "<html" not in sanitizer._prepared(html)[0].lower()


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads how much memory was ever used")
@pytest.mark.parametrize("name", ["<p><font n>", "<b x=n>", "<a ", "<div>"])
def test_a_flood_takes_little_memory(name: str) -> None:
    code = (
        "import resource, sys; sys.path[:0] = ['.', 'tests']; from test_web_sanitizer import *\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"html = flood({name!r}, 256_000); made('<p>'); before = peak(); made(html)\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB


def test_only_the_beginning_of_very_many_tags_is_shown() -> None:
    assert made("<br>" * sanitizer.MOST_TAGS).cut is False
    shown = made("<br>" * (sanitizer.MOST_TAGS + 1))
    assert shown.cut is True
    assert len(Reader(shown.document).all("br")) == sanitizer.MOST_TAGS
