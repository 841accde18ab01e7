"""Whether a queue has the software a job names: pure functions over what the queue publishes (chapter 12.1.1).

A queue publishes {cmtconfigs, containers, cvmfs, architectures, tags}; hardware is `hardware.py`'s. Jobs come here for
one queue each, so this is asked when they are submitted, where the documents ask it of all queues. Projects and
releases are not compared: what jobs say of them has no form that all experiments share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

#: The source whose entries say what software queues have (server/logic/cric.py).
SOFTWARE = "software"
#: Lists of containers with one of these take any image, and any platform: there is a container for each.
_ALL_CONTAINERS = frozenset({"any", "/cvmfs"})
_UNSET = frozenset({"", "NULL"})


def platform_of(cmt_config: str) -> str:
    """The platform of a cmtConfig: what stands before the base platform (@) and the hardware (# and &)."""
    begin = min((place for sign in "@#&" if (place := cmt_config.find(sign)) >= 0), default=len(cmt_config))
    platform = cmt_config[:begin]
    return "" if platform in _UNSET else platform


def missing_software(published: object, platform: str, container: str) -> str:
    """What a queue lacks for a job, to follow the name of the field in a sentence; empty if it lacks nothing.

    Args:
        published: what the queue says it has; one that publishes nothing is taken to have all.
        platform: of the job's cmtConfig; empty if it does not matter.
        container: the job's image; then the platform is the image's.
    """
    if not isinstance(published, dict):
        return ""
    containers = list(_texts(published, "containers"))
    if _ALL_CONTAINERS.intersection(containers):
        return ""
    if container:
        tagged = {name for tag in _tags(published) for name in (tag.get("container_name"), *_texts(tag, "sources"))}
        if container in tagged or any(container.startswith(begin) for begin in containers):
            return ""
        return _sentence("image", container, containers)
    if not platform or "cmtconfigs" not in published:
        return ""
    platforms = [*_texts(published, "cmtconfigs"), *(str(tag.get("cmtconfig", "")) for tag in _tags(published))]
    return "" if platform in platforms else _sentence("platform", platform, platforms)


def _sentence(what: str, wanted: str, there: list[str]) -> str:
    known = sorted(set(filter(None, there)))
    some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    return f"wants the {what} {wanted}, which this queue does not have; it has {some or 'none'}"


def _texts(holder: Mapping[str, object], key: str) -> Iterator[str]:
    value = holder.get(key)
    yield from (text for text in value if isinstance(text, str) and text) if isinstance(value, list) else ()


def _tags(published: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    value = published.get("tags")
    yield from (tag for tag in value if isinstance(tag, dict)) if isinstance(value, list) else ()
