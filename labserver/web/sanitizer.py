"""A message's HTML as a document that shows and does nothing else: `sanitized(html, image)`.

nh3 (html5ever and ammonia) reads the HTML; nothing here searches it for tags. What stays: text,
tables, style attributes and style sheets, and the images that the message brings along. Links and
remote images have their address as `title`, which shows it and leads nowhere. Scripts, forms,
frames, drawings (SVG, MathML), sound and film are left out and counted.

A content security policy stands in the document, so that its style reaches no host wherever the
document is opened.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import nh3

from labserver.views import palette
from labserver.views.view import count, cut

MOST_CHARACTERS = 256 * 1024
MOST_TAGS = 12_000
"""Beyond either the HTML is cut, for a parser goes through its open elements at each new one."""
IMAGES_CHARACTERS = 8_000_000
"""Of all images together, as they stand in the document."""

_MOST_LINKS = 200
_LONGEST_ADDRESS = 500

_FORMATTING = frozenset("a b big code em font i nobr s small strike strong tt u".split())
_RENAMED = _FORMATTING | {"body", "html", "svg", "math"}
_STRUCTURE = frozenset(
    """abbr acronym address area article aside bdi bdo blockquote br caption center cite col
    colgroup dd del details dfn dir div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header
    hgroup hr img ins kbd label legend li main map mark menu nav ol p pre q rp rt ruby samp section
    span style sub summary sup table tbody td tfoot th thead time tr ul var wbr""".split()
)
_WITHOUT_CONTENT = frozenset(
    """applet audio canvas frameset iframe noembed noframes noscript object portal script template
    title video""".split()
)
_EVERYWHERE = frozenset(
    """align background bgcolor border cellpadding cellspacing class clear color colspan dir face
    height hspace id lang nowrap rowspan size span start style title type valign value vspace
    width""".split()
)
_OF_ONE = {
    "area": {"href", "alt", "coords", "shape"},
    "details": {"open"},
    "img": {"alt", "src", "srcset", "usemap"},
    "map": {"name"},
}
_OF_LINKS = {"href", "xlink:href"}
_OF_FORMS = {"action", "formaction"}
_SCHEMES = nh3.ALLOWED_URL_SCHEMES | {"about", "blob", "cid", "data", "file", "javascript", "mid"}
"""An address is shown whatever it is."""
_EMBEDDED = tuple(f"data:image/{kind};" for kind in ("png", "jpeg", "gif", "webp"))

_LEFT_OUT = {
    "script": "script",
    "form": "form",
    **dict.fromkeys(("input", "button", "select", "textarea"), "form field"),
    **dict.fromkeys(("iframe", "object", "embed", "applet", "portal"), "frame"),
    **dict.fromkeys(("svg", "math"), "drawing"),
    **dict.fromkeys(("audio", "video"), "recording"),
    "link": "linked file",
}
"""What is counted, by element."""

# For style only. Each is one pass from left to right.
_CSS_ADDRESS = re.compile(r"url\(\s*[\"']?\s*([^\s\"')]*)\s*[\"']?\s*\)?", re.IGNORECASE)
_CSS_IMPORT = re.compile(r"@import[^;]*;?", re.IGNORECASE)
_CSS_SET = re.compile(r"image-set\(", re.IGNORECASE)
_LETTER = "[46][1-9a-f]|[57][0-9a]"
_CSS_ESCAPE = re.compile(
    rf"\\(?:(?:0{{4}}({_LETTER})|0{{0,3}}({_LETTER})(?![0-9a-f]))\s?|([g-z]))", re.IGNORECASE
)
"""A letter that is written as an escape, which nobody needs."""
_FONTS = (".woff2", ".woff", ".ttf", ".otf", ".eot")

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
_OWN_STYLE = (
    ":where(body){margin:14px;font:15px/1.5 system-ui,sans-serif;"
    f"color:{palette.light('ink')};background:{palette.light('bright')};"
    "overflow-wrap:break-word}:where(img){max-width:100%}"
    f":where(img[title]){{outline:1px dashed {palette.light('field')};outline-offset:-1px}}"
    f":where(a[title]){{color:{palette.light('c')};text-decoration:underline;cursor:help}}"
)
"""Where the message says nothing else."""


@dataclass(frozen=True, slots=True)
class Sanitized:
    """What became of a message's HTML."""

    document: str
    notes: list[str]
    """Sentences on what isn't shown."""
    links: list[tuple[str, str]]
    """What led away and where to, the first of them: `link` or `form`, and the address."""
    more_links: int
    cut: bool
    """Whether only the beginning is shown."""


def sanitized(html: str, image: Callable[[str], str]) -> Sanitized:
    """Make a document of a message's HTML.

    `image` gives an image of the message by its Content-ID (RFC 2392) as a `data:` address, or
    nothing. However often an image is referred to, it is put in once for each way it is used: as
    an image, as a background, in a style sheet.
    """
    made, was_cut, mark = _prepared(html)
    survey = _Survey(mark)
    survey.read(made)
    cleaning = _Cleaning(mark, image)
    document = cleaning.document(made)
    fonts = sum(_is_font(address) for address in cleaning.remote)
    survey.counts["remote image"] = len(cleaning.remote) - fonts + cleaning.image_sets
    survey.counts["remote font"] = fonts
    survey.counts["linked file"] += cleaning.imports
    counts = [count(number, what) for what, number in sorted(survey.counts.items()) if number]
    notes = [f"Left out: {', '.join(counts)}."] if counts else []
    if cleaning.unplaced:
        notes.append(
            f"Not shown: {count(len(cleaning.unplaced), 'image')} of the message, because all "
            f"together have more than {IMAGES_CHARACTERS // 1_000_000} MB; "
            "download them under Parts."
        )
    more = max(0, len(survey.links) - _MOST_LINKS)
    return Sanitized(document, notes, survey.links[:_MOST_LINKS], more, was_cut)


def _prepared(html: str) -> tuple[str, bool, str]:
    """The HTML for nh3, whether it was cut, and a mark that nobody can have written.

    The mark is put before some elements' names, so that they mean nothing to the parser; with it
    removed from what nh3 gives back, they are themselves again.
    - Formatting elements: left open, a parser opens them anew in each block (80 kB become 400 MB).
    - SVG and MathML: what stands in them is read by other rules.
    - The body: nh3 reads what stands within one, and would drop its style.
    - The root: a parser gives it the attributes of each further one, compared with all it has.
    """
    mark = f"x{secrets.token_hex(8)}-"
    # Without lone surrogates, which nh3 refuses.
    shown = html[:MOST_CHARACTERS].encode("utf-8", "replace").decode()
    pieces = shown.split("<", MOST_TAGS + 1)
    was_cut = len(pieces) > MOST_TAGS + 1 or len(html) > MOST_CHARACTERS
    for at, piece in enumerate(pieces):
        slash = piece[:1] == "/"
        name = piece[slash : slash + 8].lower()
        length = next((n for n, c in enumerate(name) if not "a" <= c <= "z"), len(name))
        if at and name[:length] in _RENAMED:
            pieces[at] = f"{'/' * slash}{mark}{piece[slash:]}"
    return "<".join(pieces[: MOST_TAGS + 1]), was_cut, mark


class _Survey:
    """Counts what isn't shown, and collects addresses; what it reads is thrown away."""

    def __init__(self, mark: str) -> None:
        self.counts: Counter[str] = Counter()
        self.links: list[tuple[str, str]] = []
        self._mark = mark

    def read(self, html: str) -> None:
        counted = {self._name(element) for element in _LEFT_OUT}
        nh3.clean(
            html,
            tags=counted | {self._name("a"), "area"},
            clean_content_tags=set(),
            attributes={"*": _OF_LINKS | _OF_FORMS},
            attribute_filter=self._note,
            set_tag_attribute_values={element: {"id": ""} for element in counted},
            url_schemes=_SCHEMES,
            link_rel=None,
        )

    def _name(self, element: str) -> str:
        return self._mark + element if element in _RENAMED else element

    def _note(self, element: str, attribute: str, value: str) -> None:
        # nh3 also asks about elements that it takes out.
        element = element.removeprefix(self._mark)
        if attribute == "id" and element in _LEFT_OUT:
            self.counts[_LEFT_OUT[element]] += 1
        elif attribute in _OF_LINKS and element in ("a", "area"):
            self.links.append(("link", _address(value.replace(self._mark, ""))))
        elif attribute in _OF_FORMS and element in _LEFT_OUT:
            self.links.append(("form", _address(value.replace(self._mark, ""))))


class _Cleaning:
    """What is shown of the HTML, and which of the message's images stand in it."""

    def __init__(self, mark: str, image: Callable[[str], str]) -> None:
        self.remote: set[str] = set()
        """Addresses of images and fonts that would have been fetched."""
        self.imports = self.image_sets = 0
        """Of style sheets, and of images, by string and not by `url(`."""
        self.unplaced: set[str] = set()
        self._mark, self._image = mark, image
        self._sign = f"{mark}is-"
        """Before a value whose attribute gets another name."""
        self._placed: dict[tuple[str, str], str] = {}
        self._rules: list[str] = []
        self._characters = 0

    def document(self, html: str) -> str:
        """The whole document."""
        body = nh3.clean(
            html,
            tags=_STRUCTURE | {self._mark + name for name in (*_FORMATTING, "body")},
            clean_content_tags=_WITHOUT_CONTENT | {f"{self._mark}svg", f"{self._mark}math"},
            attributes={"*": _EVERYWHERE, f"{self._mark}a": {"href", "name"}, **_OF_ONE},
            attribute_filter=self._filter,
            url_schemes=_SCHEMES,
            link_rel=None,
        )
        # nh3 writes each attribute as ` name="value"`, and nobody else knows the sign.
        for written, shown in (
            ('href="{}:', 'title="'),
            ('src="{}:', 'title="'),
            ('src="{}=', 'data-image="'),
            ('srcset="{}=', 'data-image="'),
            ('background="{}=', 'data-behind="'),
        ):
            body = body.replace(f" {written.format(self._sign)}", f" {shown}")
        body = body.replace(self._sign, '" data-behind="').replace(self._mark, "")
        body = self._with_sheets(body)
        return (
            '<!doctype html><html><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f"<title>A message</title><style>{_OWN_STYLE}{''.join(self._rules)}</style>"
            f"</head><body>{body}</body></html>"
        )

    def _filter(self, element: str, attribute: str, value: str) -> str | None:
        """The value that an attribute keeps, or none."""
        value = value.replace(self._mark, "")
        if attribute == "href":
            return f"{self._sign}:{_address(value)}"
        if attribute == "title" and element in (f"{self._mark}a", "area", "img"):
            return None  # there it is the address
        if attribute in ("src", "srcset", "background"):
            return self._of_image(element, attribute, value.strip())
        return self._of_style(value) if attribute == "style" else value

    def _of_image(self, element: str, attribute: str, value: str) -> str | None:
        if element != "img" and attribute != "background":
            return None  # nh3 also asks about elements that it takes out
        address = next(iter(value.split()), "") if attribute == "srcset" else value
        if attribute == "src" and address.lower().startswith(_EMBEDDED):
            return value
        place = self._place(address, "behind" if attribute == "background" else "image")
        if place:
            return f"{self._sign}={place}"
        self._note_remote(address)
        return f"{self._sign}:Not shown: {_address(address)}" if attribute == "src" else None

    def _of_style(self, css: str) -> str:
        """A style attribute without addresses; an image of the message becomes a background."""
        places = []

        def taken(match: re.Match[str]) -> str:
            places.append(self._place(match[1], "behind"))
            return self._unless_embedded(match)

        css = _CSS_ADDRESS.sub(taken, self._without_strings(css))
        place = next(filter(None, places), "")
        return f"{css}{self._sign}{place}" if place else css

    def _with_sheets(self, body: str) -> str:
        """Style sheets without addresses; an image of the message stands where it comes first."""

        def taken(match: re.Match[str]) -> str:
            before = len(self._placed)
            place = self._place(match[1], "sheet")
            if place and len(self._placed) > before:
                return f"url({self._data(match[1])})"
            return self._unless_embedded(match)

        first, *others = body.split("<style")
        for at, other in enumerate(others):
            css, end, rest = other.partition("</style>")
            css = _CSS_ADDRESS.sub(taken, self._without_strings(css))
            others[at] = f"{css}{end}{rest}"
        return "<style".join([first, *others])

    def _without_strings(self, css: str) -> str:
        """Style in which no address stands but by `url(`."""
        css = _CSS_ESCAPE.sub(_letter, css)
        css, imports = _CSS_IMPORT.subn("", css)
        css, image_sets = _CSS_SET.subn("none(", css)
        self.imports += imports
        self.image_sets += image_sets
        return css

    def _unless_embedded(self, match: re.Match[str]) -> str:
        if match[1].lower().startswith("data:"):
            return match[0]
        self._note_remote(match[1])
        return "none"

    def _note_remote(self, address: str) -> None:
        if address and not address.lower().startswith(("cid:", "data:", "#")):
            self.remote.add(address)

    def _place(self, address: str, use: str) -> str:
        """The name of the place where that image of the message stands; empty if it has none."""
        if not address.lower().startswith("cid:"):
            return ""
        key = (unquote(address[4:]), use)
        if key not in self._placed:
            data = self._data(address)
            fits = self._characters + len(data) <= IMAGES_CHARACTERS
            if not fits:
                self.unplaced.add(key[0])
            self._placed[key] = str(len(self._placed) + 1) if data and fits else ""
            if self._placed[key]:
                self._characters += len(data)
                self._rules.append(_RULES[use].format(self._placed[key], data))
        return self._placed[key]

    def _data(self, address: str) -> str:
        return self._image(address[4:]) or self._image(unquote(address[4:]))


_RULES = {
    "image": '[data-image="{}"]{{content:url({})}}',
    "behind": '[data-behind="{}"]{{background-image:url({})!important}}',
    "sheet": "",
}


def _address(value: str) -> str:
    return cut(value.strip(), _LONGEST_ADDRESS)


def _letter(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else escape[3]


def _is_font(address: str) -> bool:
    return address.lower().partition("?")[0].endswith(_FONTS)
