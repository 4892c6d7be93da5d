"""XML of a bank, read with nothing that XML can do but carry text: no entities, no DTD, no network, no huge trees."""

from typing import Any, Final

from lxml import etree

MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024
_NAMESPACES: Final = "urn:iso:std:iso:20022:tech:xsd:"


class XmlRefusedError(ValueError):
    """A document that is not read; the text is safe for logs."""


def read_document(body: bytes) -> tuple[str, etree._Element]:
    """Return the message's name, such as `camt.054.001.08`, and the element under `Document`.

    Raises XmlRefusedError for what is too large, not XML, no ISO 20022 document, or carries a document type: that is
    where entity bombs and references to files and hosts come from.
    """
    if len(body) > MESSAGE_MAX_BYTES:
        raise XmlRefusedError(f"a message of {len(body)} bytes is above {MESSAGE_MAX_BYTES}")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise XmlRefusedError("not well-formed XML") from error
    told: Any = root.getroottree().docinfo
    if told.doctype:
        raise XmlRefusedError("a message with a document type")
    name = etree.QName(root)
    if name.localname != "Document" or not (name.namespace or "").startswith(_NAMESPACES) or len(root) != 1:
        raise XmlRefusedError("not an ISO 20022 document")
    return str(name.namespace).removeprefix(_NAMESPACES), root[0]


def find_all(element: etree._Element, path: str) -> list[etree._Element]:
    """Return the elements at a path of local names, such as `Stmt/Ntry`; versions differ in their namespace alone."""
    return element.findall("/".join(f"{{*}}{step}" for step in path.split("/")))


def find(element: etree._Element, path: str) -> etree._Element | None:
    """Return the first element at a path."""
    return next(iter(find_all(element, path)), None)


def text_at(element: etree._Element, path: str) -> str:
    """Return the trimmed text at a path; empty where there is none."""
    found = find(element, path)
    return (found.text or "").strip() if found is not None else ""


def source_of(element: etree._Element, characters: int = 4_000) -> str:
    """Return the element as it was written: evidence."""
    return etree.tostring(element, encoding="unicode", with_tail=False)[:characters]
