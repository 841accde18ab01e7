"""What a job says of the hardware it needs, and which queues and nodes have it (chapter 12.1.1 of PanDA's documents).

A job says it in its cmtConfig: platform<@base platform><#CPU><&GPU>, CPU being architecture<-vendor<-instruction set>>
and GPU vendor<-model>. A queue says in `architectures` what it has, a dictionary for CPUs and one for GPUs, whose
attributes are lists: a job that wants the attribute must find its word there (an empty word is any); one that does not
want it is refused where `excl` is in the list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.db.information import Description

_CPU = ("arch", "vendor", "instr")
_GPU = ("vendor", "model")
_EXCLUSIVE = "excl"
#: Words for "any".
_ANY = frozenset({"", "*", "any"})
_SPEC = re.compile(r"(?:#(?P<cpu>[^&#]*))?(?:&(?P<gpu>[^&#]*))?\Z")


@dataclass(frozen=True)
class Hardware:
    """What a queue, and the node that asks, say of their hardware.

    Attributes:
        cpu: attribute -> words; None if the queue says nothing of its CPUs.
        gpu: the same of its GPUs; None if it has none.
        node_gpus: (vendor, model) of the GPUs that the node's pilot has told of.
    """

    cpu: Mapping[str, Sequence[str]] | None = None
    gpu: Mapping[str, Sequence[str]] | None = None
    node_gpus: Sequence[tuple[str, str]] = ()


def hardware_of(description: Description, node_gpus: Sequence[tuple[str, str]] = ()) -> Hardware:
    """What a queue's description says; what it does not say as the documents want it is passed over."""
    architectures = description.get("architectures")
    found: dict[str, dict[str, Sequence[str]]] = {}
    for entry in architectures if isinstance(architectures, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("type"), str):
            words: dict[str, Sequence[str]] = {
                key: [str(word).lower() for word in value] for key, value in entry.items() if isinstance(value, list)
            }
            found[entry["type"]] = words
    return Hardware(found.get("cpu"), found.get("gpu"), node_gpus)


def hardware_wanted(cmt_config: str) -> str:
    """The part of a cmtConfig that is about hardware: #CPU&GPU; empty if there is none."""
    begin = min((place for place in (cmt_config.find("#"), cmt_config.find("&")) if place >= 0), default=-1)
    return cmt_config[begin:] if begin >= 0 else ""


def complaint_about_hardware(wanted: str) -> str:
    """What is wrong with what `hardware_wanted` found; empty if nothing is."""
    return (
        "" if _SPEC.match(wanted) else "has more than one # or &: the form is platform#arch-vendor-instr&vendor-model"
    )


def wants_gpu(wanted: str) -> bool:
    """Whether a job needs a GPU."""
    return "&" in wanted


def lacking(wanted: str, hardware: Hardware) -> str:
    """What a job that wants this hardware does not find, in words; empty if it finds all."""
    if not wanted and hardware.cpu is None and hardware.gpu is None:
        return ""
    spec = _SPEC.match(wanted)
    cpu, gpu = (spec["cpu"], spec["gpu"]) if spec else (None, None)
    if gpu is not None and not _has_gpu(gpu, hardware):
        return f"the jobs queued need a GPU ({gpu or 'any'}), which neither the queue nor the node has"
    if gpu is None and hardware.gpu is not None and not _accepts(_GPU, "", hardware.gpu):
        return "the queue is for jobs that use its GPUs; those queued do not"
    if hardware.cpu is not None and not _accepts(_CPU, cpu or "", hardware.cpu):
        return f"the jobs queued need other CPUs ({cpu})" if cpu else "the queue is for jobs that name its CPUs"
    return ""


def _has_gpu(gpu: str, hardware: Hardware) -> bool:
    if hardware.gpu is not None and _accepts(_GPU, gpu, hardware.gpu):
        return True
    on_node = ({"vendor": [vendor.lower()], "model": [model.lower()]} for vendor, model in hardware.node_gpus)
    return any(_accepts(_GPU, gpu, words) for words in on_node)


def _accepts(attributes: Sequence[str], spec: str, words: Mapping[str, Sequence[str]]) -> bool:
    wanted = [*spec.lower().split("-", len(attributes) - 1), "", "", ""]
    for attribute, word in zip(attributes, wanted, strict=False):
        allowed = words.get(attribute)
        if allowed is None:
            continue
        if word in _ANY:
            if _EXCLUSIVE in allowed:
                return False
        elif word not in allowed and not _ANY.intersection(allowed):
            return False
    return True
