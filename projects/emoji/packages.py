"""The pinned packages that the pictures and the words come from, and the drawing styles they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from projects.emoji.icon_names import FXEMOJI_NAMES, OLD_NAMES


@dataclass(frozen=True)
class Package:
    """One npm package at one version, with the sha256 of the archive that `npm pack` writes."""

    name: str
    version: str
    licence: str
    """SPDX identifier of the licence of what we read from the package."""
    sha256: str

    @property
    def archive_name(self) -> str:
        """The file name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


UNICODE_NAMES = Package(
    "unicode-emoji-json", "0.9.0", "MIT", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401"
)
EMOJIBASE = Package(
    "emojibase-data", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)
EMOJILIB = Package("emojilib", "4.0.3", "MIT", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")

FLUENT_3D = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
)
FLUENT_COLOR = Package(
    "@iconify-json/fluent-emoji", "1.2.7", "MIT", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"
)
FLUENT_FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "MIT",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
)
NOTO = Package(
    "@iconify-json/noto", "1.2.9", "Apache-2.0", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
)
NOTO_V1 = Package(
    "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
)
FXEMOJI = Package(
    "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"
)
TWEMOJI = Package(
    "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
)
EMOJIONE_2 = Package(
    "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
)
OPENMOJI = Package(
    "@iconify-json/openmoji",
    "1.2.29",
    "CC-BY-SA-4.0",
    "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
)
EMOJIONE_1 = Package(
    "@iconify-json/emojione-v1",
    "1.2.3",
    "CC-BY-SA-4.0",
    "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
)

WORD_PACKAGES = (UNICODE_NAMES, EMOJIBASE, EMOJILIB)


@dataclass(frozen=True)
class Style:
    """One way of drawing. Styles of one family share silhouettes, so they are held out together."""

    name: str
    family: str
    package: Package
    charted_by: Package | None = None
    """Package with the same icon names that also says which codepoint each name draws."""
    renamed: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    """Without such a package: what some icons show, where their names would mislead."""


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style("fluent-3d", "fluent", FLUENT_3D),
        Style("fluent-color", "fluent", FLUENT_COLOR, charted_by=FLUENT_FLAT),
        Style("fluent-flat", "fluent", FLUENT_FLAT, charted_by=FLUENT_FLAT),
        Style("noto", "noto", NOTO, charted_by=NOTO),
        Style("noto-v1", "noto-v1", NOTO_V1, renamed=OLD_NAMES),
        Style("fxemoji", "fxemoji", FXEMOJI, renamed=FXEMOJI_NAMES),
        Style("twemoji", "twemoji", TWEMOJI, charted_by=TWEMOJI),
        Style("emojione2", "emojione", EMOJIONE_2, renamed=OLD_NAMES),
        Style("openmoji", "openmoji", OPENMOJI, charted_by=OPENMOJI),
        Style("emojione1", "emojione", EMOJIONE_1, renamed=OLD_NAMES),
    )
}

SHARE_ALIKE_STYLES = ("openmoji", "emojione1")
OPEN_STYLES = tuple(name for name in STYLES if name not in SHARE_ALIKE_STYLES)
