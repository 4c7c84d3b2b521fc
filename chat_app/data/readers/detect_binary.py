"""Detection of files that are neither text nor tables (media, archives, Office documents), with advice for each."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

Office = Literal["xlsx", "xlsb", "docx", "odt", "pptx", "opendocument", "epub", "apple", "other"]

MEDIA = frozenset(
    (
        *(
            "jpg",
            "jpeg",
            "png",
            "gif",
            "webp",
            "bmp",
            "heic",
            "heif",
            "tif",
            "tiff",
            "svg",
            "ico",
            "avif",
            "psd",
            "raw",
        ),
        *("mp3", "mp4", "m4a", "m4v", "aac", "opus", "ogg", "oga", "wav", "flac", "wma", "amr", "aiff", "mid"),
        *("mov", "avi", "mkv", "webm", "3gp", "wmv", "mpg", "mpeg", "ogv", "pdf", "vcf", "ics", "tgs", "was"),
        *("exe", "dll", "so", "dylib", "bin", "pt", "pth", "ckpt", "safetensors", "gguf", "onnx", "npy", "npz", "pyc"),
        *("ttf", "otf", "woff", "woff2", "css", "js", "apk", "iso", "dmg", "class", "o", "a"),
    )
)
MEDIA_HEADS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"OggS", b"ID3", b"RIFF", b"fLaC", b"\x7fELF")
ARCHIVES = (
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
)
DOCUMENTS: dict[Office, tuple[str, str]] = {
    "xlsb": ("a binary Excel workbook", "Open it in Excel and save it as .xlsx or as CSV UTF-8."),
    "pptx": ("a PowerPoint presentation", "Copy its text into a file of text (.txt)."),
    "opendocument": (
        "an OpenDocument file",
        "Open it and save a table as .xlsx or CSV, a text as plain text (.txt).",
    ),
    "epub": ("an electronic book", "Convert it to plain text (.txt), in UTF-8."),
    "apple": ("a document of Pages, Numbers or Keynote", "Open it and export a table as CSV, a text as plain text."),
    "other": ("an Office document", "Open it and save a table as .xlsx or CSV, a text as plain text (.txt)."),
}
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
TAR_AT = 257


def is_media(name: str, head: bytes = b"") -> bool:
    """Whether a file is an image, audio, a video, a program or the like, by its extension or its first bytes."""
    return Path(name).suffix[1:].lower() in MEDIA or head.startswith(MEDIA_HEADS) or head[4:8] == b"ftyp"


def detect_office(path: Path) -> Office | None:
    """The kind of Office document in a zip file; None for a plain archive and for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                kind = archive.read("mimetype")
                if kind.strip() == b"application/vnd.oasis.opendocument.text":
                    return "odt"
                if b"opendocument" in kind:
                    return "opendocument"
                if b"epub" in kind:
                    return "epub"
    except (OSError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile):
        return None
    if any(name.startswith("Index/") and name.endswith(".iwa") for name in names) or "Index.zip" in names:
        return "apple"
    if "[Content_Types].xml" not in names:
        return None
    if "xl/workbook.xml" in names:
        return "xlsx"
    if "xl/workbook.bin" in names:
        return "xlsb"
    starts = {name.partition("/")[0] for name in names}
    return "docx" if "word" in starts else "pptx" if "ppt" in starts else "xlsx" if "xl" in starts else "other"


def explain_unreadable(path: Path, head: bytes) -> tuple[str, str] | None:
    """The reason and the advice for a file that cannot be read here; None for every other file."""
    for signature, what in ARCHIVES:
        if head.startswith(signature):
            return f"This is {what}.", "Unpack it, and give what is inside, or pack it as .zip or .gz."
    if head[TAR_AT : TAR_AT + 5] == b"ustar":
        return "This is a tar archive.", "Unpack it, and give its folder, or pack it as .zip."
    if head.startswith(ZIP_HEADS):
        kind = detect_office(path)
        if kind and kind in DOCUMENTS:
            what, advice = DOCUMENTS[kind]
            return f"This is {what}, not a file of text.", advice
    return None
