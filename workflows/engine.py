"""A Nipype workflow with a methods text and references."""

from __future__ import annotations

from typing import Any

from nipype.pipeline import engine as pe

from posepipe.references import Reference


class Workflow(pe.Workflow):
    """A Nipype workflow with ``__desc__``, the methods text of what it does, and ``references`` that the text cites.

    Both are collected from all nested workflows, each sentence and each reference once.
    """

    __desc__: str = ""
    references: tuple[Reference, ...] = ()

    def visit_desc(self) -> str:
        """The methods text of this workflow and of those inside it, in the order they were added."""
        paragraphs = [text for part in self._literate() for text in part.__desc__.split("\n\n") if text]
        return "\n\n".join(dict.fromkeys(paragraphs))

    def visit_references(self) -> list[Reference]:
        """The references of all those texts."""
        return list(dict.fromkeys(reference for part in self._literate() for reference in part.references))

    def _literate(self) -> list[Workflow]:
        inner = [node for node in self._graph.nodes() if isinstance(node, Workflow)]
        return [self, *(deeper for part in inner for deeper in part._literate())]


def execution_config(**options: Any) -> dict[str, dict[str, str]]:
    """Nipype's settings for posepipe's workflows.

    Files are hashed by content, so that an input with a new time stamp but the same content is not processed again. Images
    are small (a few MB), so that this takes milliseconds.
    """
    execution = {
        "hash_method": "content",
        "crashfile_format": "txt",
        "create_report": False,
        "remove_unnecessary_outputs": False,
        "poll_sleep_duration": 0.05,
        "check_version": False,
        **options,
    }
    return {"execution": {name: _text(value) for name, value in execution.items()}}


def _text(value: Any) -> str:
    """A setting as Nipype's configuration holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
