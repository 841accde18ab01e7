"""v1 methods about datasets: how far they have come, and what is in them."""

from __future__ import annotations

from server.logic import datasets
from server.routes.registry import USERS, Call, Kind, Registry, optional, required

registry = Registry()


@registry.method(
    "dataset/list",
    "GET",
    USERS,
    optional("name", Kind.TEXT, "a name, in which * stands for anything"),
    optional("state", Kind.TEXT, "open or closed"),
    optional("user", Kind.TEXT, "whose: prodUserName"),
    optional("limit", Kind.INTEGER),
)
def list_datasets(call: Call) -> object:
    """The newest datasets that fulfil all conditions given, with the numbers of when they were looked at last."""
    return datasets.list_datasets(
        call.context,
        call.identity,
        call.text("name"),
        call.text("state"),
        call.text("user"),
        call.integer("limit", 1000),
    )


_USER = optional("user", Kind.TEXT, "whose, where several users have one of this name")


@registry.method("dataset/get", "GET", USERS, required("scope"), required("name"), _USER)
def get_dataset(call: Call) -> object:
    """A dataset: its state and how many files are in it, and how many are still to come."""
    return datasets.read_dataset(call.context, call.identity, call.text("scope"), call.text("name"), call.text("user"))


@registry.method(
    "dataset/list_files",
    "GET",
    USERS,
    required("scope"),
    required("name"),
    optional("after", Kind.TEXT, "the last LFN of the page before"),
    optional("limit", Kind.INTEGER),
    _USER,
)
def list_files(call: Call) -> object:
    """The files of a dataset by LFN: ready, promised or lost, whose, size, checksum, and where they are."""
    return datasets.list_files(
        call.context,
        call.identity,
        call.text("scope"),
        call.text("name"),
        call.text("after"),
        call.integer("limit", 1000),
        call.text("user"),
    )
