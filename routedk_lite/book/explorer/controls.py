"""The widgets of the live explorer: what they are, how they lie, and how they are set without setting anything off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape

try:
    import ipywidgets as widgets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'the live explorer needs ipywidgets: pip install "ipywidgets>=7.7", then restart the kernel', name="ipywidgets"
    ) from error

from ...data.sessions import Session
from .html import style, tag

SHOWN = 60
"""Test sessions in the list."""
ALL = "all layers"
"""In the list of layers. Not `None`: a list of ipywidgets goes blank when that is chosen."""


class Controls:
    """Widgets to choose a session, write one, and weigh experts; what they set off is said by who uses them.

    Args:
        sessions: to choose from; the first `SHOWN` are listed.
        names: of the experts, each with a slider.
        layer_numbers: of the layers that have experts.
    """

    def __init__(self, sessions: Sequence[Session], names: Sequence[str], layer_numbers: Sequence[int]) -> None:
        self.silent = False
        """Whether what is set now sets nothing off."""
        wide = widgets.Layout(width="100%")
        name = {"description_width": "initial"}
        options = [(f"session {s.called}, {len(s)} products", i) for i, s in enumerate(sessions[:SHOWN])]
        self.choice = widgets.Dropdown(options=options, description="From the test sessions:", style=name, layout=wide)
        self.text = widgets.Textarea(
            description="Products, one per line:", style=name, layout=widgets.Layout(width="100%", height="9.5em")
        )
        layers = [(ALL, ALL), *((f"layer {number}", number) for number in layer_numbers)]
        self.layer = widgets.Dropdown(options=layers, description="Weights of:", style=name, layout=wide)
        # Not `continuous_update`: a browser would then send every value that is set here back, rounded to the step, and
        # nothing tells such an echo from a hand.
        self.sliders = [
            widgets.FloatSlider(
                min=0, max=1, step=0.01, description=expert, readout_format=".2f", style={"description_width": "6em"},
                layout=wide, continuous_update=False,
            )
            for expert in names
        ]  # fmt: skip
        self.shares = widgets.Checkbox(value=True, description="let them sum to one", indent=False)
        self.back = widgets.Button(description="What the router would do", layout=widgets.Layout(width="auto"))
        self.status = widgets.HTML()
        self.output = widgets.HTML(layout=wide)
        side = widgets.Layout(flex="1 1 300px", min_width="0", padding="0 20px 4px 0")  # a layout has no gap
        left = widgets.VBox([self.choice, self.text], layout=side)
        right = widgets.VBox([self.layer, *self.sliders, self.shares, self.back], layout=side)
        top = widgets.Box([left, right], layout=widgets.Layout(display="flex", flex_flow="row wrap"))
        self.widget = widgets.VBox([widgets.HTML(style()), top, self.status, self.output])

    @property
    def chosen_layer(self) -> int | None:
        """The layer whose weights the sliders are; `None` is all of them."""
        return None if self.layer.value == ALL else self.layer.value

    def say(self, text: str, busy: bool = False) -> None:
        """Put a text in the line of status, which is read aloud to those who do not see it."""
        attributes = {"role": "status", "aria-live": "polite", "aria-busy": str(busy).lower()}
        self.status.value = tag("div", attributes, ("⏳ " if busy else "") + escape(text))

    def write_titles(self, session: Session) -> None:
        """Let the field of products show those of a session."""
        with self._quietly():
            self.text.value = "\n".join(session.titles)

    def move_sliders(self, weights: Sequence[float]) -> None:
        """Let the sliders show these weights, one per expert."""
        with self._quietly():
            for slider, weight in zip(self.sliders, weights, strict=True):
                slider.value = min(1.0, float(weight))

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Within the block, widgets that are set do not set anything off."""
        before, self.silent = self.silent, True
        try:
            yield
        finally:
            self.silent = before
