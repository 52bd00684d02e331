"""The live explorer: type a session, drag the experts' weights, and see a real routed model answer again.

Plain ipywidgets, so that it works in JupyterLab, Notebook, VS Code and Colab. A change waits until the hand rests for a
moment; while the model computes, the status says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...answers.answering import profile_reader
from ...answers.asking import Reading, ask
from ...answers.partitions import PartitionDecoder, SizePrior
from ...config import Profile, get_profile
from ...data.domains import load_domain
from ...data.own import domain_name
from ...data.sessions import Session
from ...fusion.routed import RoutedModel
from ...student.backbone import load_student
from ...student.pairs import PairReader
from ...study.records import load_all, without_seed
from .controls import ALL, Controls
from .html import style, tag
from .reading import reading_html
from .waiting import WAIT, Debouncer

if TYPE_CHECKING:
    from ...student.backbone import Student
    from ...study.pipeline import Pipeline

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
"""The type under which a page with a kernel finds a widget."""


class LiveExplorer(Controls):
    """A routed model to play with. Show it as the last value of a cell; every control has a method for scripts too.

    Args:
        model: the student with experts and fusion.
        student: the student inside it.
        profile: prompt and settings of decoding, or its name.
        sessions: to choose from; the first is shown.
        reader, decoder: pairs decide on the bundles where both are given; else the profile does, as `asking.ask` says.
        wait: seconds without a further change after which the model is asked.

    Raises:
        ValueError: no sessions.
    """

    def __init__(
        self,
        model: RoutedModel,
        student: Student,
        sessions: Iterable[Session],
        *,
        profile: str | Profile,
        reader: PairReader | None = None,
        decoder: PartitionDecoder | None = None,
        wait: float = WAIT,
    ) -> None:
        self.model, self.student, self.sessions = model, student, tuple(sessions)
        if not self.sessions:
            raise ValueError("sessions is empty: give at least one to begin with")
        self._how: dict[str, Any] = {"profile": get_profile(profile), "reader": reader, "decoder": decoder}
        self.names = tuple(without_seed(name) for name in model.expert_names)
        self.session = self.sessions[0]
        self.overrides: dict[int | None, tuple[float, ...]] = {}
        """Layer → weights set by hand; `None` is all layers."""
        self.router: Reading | None = None
        """What the model does when left alone."""
        self.reading: Reading | None = None
        """What it does now."""
        self.later = Debouncer(self.refresh, wait)
        super().__init__(self.sessions, self.names, model.layer_numbers)
        self._listen()
        self.show(self.session)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        profile: str | Profile,
        domain: str | Path,
        *,
        results: str | Path = "results",
        seed: int = 0,
    ) -> LiveExplorer:
        """A saved routed model on a freshly loaded student.

        Args:
            folder: from `routedk export`, `Pipeline.export` or `RoutedModel.save_pretrained`.
            profile, domain: what it was trained with and on.
            results: where a profile decodes bundles from pairs, the decoder is that of the recorded dynamic run there.
            seed: of that run.

        Raises:
            FileNotFoundError: the folder holds no routed model.
            ValueError: experts of another student, or the decoder is not recorded.
        """
        profile = get_profile(profile)
        student, train = load_student(profile), load_domain(domain, "train")
        reader, decoder = None, None
        if profile.answers == "pairs":
            reader = profile_reader(profile, student, train)
            wanted = (profile.name, domain_name(domain), f"fusion-dynamic-seed{seed}")
            found = [r for r in load_all(results) if (r.profile, r.domain, r.run) == wanted]
            if not found:
                raise ValueError(f"{results}: no record {'/'.join(wanted)}, whose decoder is needed to read bundles")
            decoder = PartitionDecoder(prior=SizePrior(train), **found[0].analysis["decoder"])
        model = RoutedModel.from_pretrained(folder, student.model, student=student.info.id)
        test = load_domain(domain, "test").sessions
        return cls(model, student, test, profile=profile, reader=reader, decoder=decoder)

    @classmethod
    def from_study(cls, study: Pipeline, fusion: str = "dynamic") -> LiveExplorer:
        """A study's routed model; what is not trained yet is trained first."""
        folder = study.export(study.work / f"exported-{fusion}-seed{study.seed}", fusion)
        return cls.from_folder(folder, study.profile, study.source, results=study.results, seed=study.seed)

    # --- what can be done ---------------------------------------------------------------------------------------

    def show(self, session: Session | Sequence[str]) -> Reading:
        """Look at another session, or at products of one's own: one title each.

        Raises:
            ValueError: fewer than two products.
        """
        if not isinstance(session, Session):
            titles = tuple(title.strip() for title in session if title.strip())
            if len(titles) < 2:
                raise ValueError(f"{len(titles)} products: give at least two, one per line")
            session = Session(id=-1, items=titles, titles=titles, bundles=())
        self.session, self.router = session, None
        self.write_titles(session)
        return self.refresh()

    def override(self, weights: Sequence[float], layer: int | None = None) -> Reading:
        """Set the experts' weights by hand.

        Args:
            weights: one per expert.
            layer: number of a decoder layer; `None` is all of them, and takes back what was set for single ones.

        Raises:
            ValueError: another number of weights, a negative one, or a layer without experts.
        """
        weights = tuple(float(w) for w in weights)
        if len(weights) != len(self.names) or min(weights) < 0:
            raise ValueError(f"weights = {weights}: give one of 0 or more for each of {', '.join(self.names)}")
        if layer is not None and layer not in self.model.layer_numbers:
            raise ValueError(f"layer = {layer}: choose one of {list(self.model.layer_numbers)}, or None for all")
        self._set(weights, layer)
        return self.refresh()

    def release(self) -> Reading:
        """Back to what the router does."""
        self.overrides = {}
        return self.refresh()

    def refresh(self) -> Reading:
        """Ask the model with the present session and weights, and show what it says."""
        self.later.cancel()
        self.say("computing …", busy=True)
        try:
            if self.router is None:
                self.router = ask(self.model, self.student, self.session, **self._how)
            self.reading = self.router
            if self.overrides:
                with self._overridden():
                    self.reading = ask(self.model, self.student, self.session, **self._how)
        except (ValueError, RuntimeError) as error:
            self.say(f"That did not work: {error}")
            raise
        self.output.value = self._html()
        self._follow()
        by = "weights: the router's" if not self.overrides else f"weights by hand in {self._where()}"
        self.say(f"{by} · answered in {self.reading.seconds:.2f} s")
        return self.reading

    def snapshot(self):
        """What is shown now, as HTML that stays: for pages without a kernel."""
        from IPython.display import HTML

        return HTML(tag("div", {"class": "rdkx"}, style(), tag("div", {"class": "rdkx-in"}, self._html())))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        """The widgets; where there is no kernel, what they showed at first."""
        shown = {"text/html": self.snapshot().data, "text/plain": repr(self)}
        if self.widget.comm is None:  # closed
            return shown
        # Not the widget's own bundle: ipywidgets 7, which Colab has, displays by another method.
        return {WIDGET_VIEW: self.widget.get_view_spec(), **shown}

    def __repr__(self) -> str:
        return f"LiveExplorer: {', '.join(self.names)} on {self.student.info.id}, session {self.session.called}"

    def close(self) -> None:
        """Take the experts off the student, and the widgets off the page."""
        self.later.cancel()
        self.widget.close()
        self.model.unload()

    # --- how it works -------------------------------------------------------------------------------------------

    def _set(self, weights: tuple[float, ...], layer: int | None) -> None:
        if layer is None:
            self.overrides = {}
        self.overrides[layer] = weights

    def _html(self) -> str:
        if self.router is None or self.reading is None:
            return ""
        return reading_html(self.session, self.names, self.model.layer_numbers, self.router, self.reading)

    @contextmanager
    def _overridden(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in sorted(self.overrides, key=lambda number: -1 if number is None else number):
                stack.enter_context(self.model.override(self.overrides[layer], layer))
            yield

    def _where(self) -> str:
        layers = [f"layer {number}" for number in self.overrides if number is not None]
        return ", ".join(([ALL] if None in self.overrides else []) + layers)

    def _listen(self) -> None:
        self.choice.observe(lambda change: self._chosen(), "value")
        self.text.observe(lambda change: self._typed(), "value")
        self.layer.observe(lambda change: self._follow(), "value")
        for place, slider in enumerate(self.sliders):
            slider.observe(lambda change, place=place: self._dragged(place), "value")
        self.back.on_click(lambda button: self.release())

    def _chosen(self) -> None:
        if not self.silent:
            self.session, self.router = self.sessions[self.choice.value], None
            self.write_titles(self.session)
            self._soon()

    def _typed(self) -> None:
        if self.silent:
            return
        titles = tuple(line.strip() for line in self.text.value.splitlines() if line.strip())
        if titles == self.session.titles:
            return
        if len(titles) < 2:
            self.later.cancel()
            self.say("Type at least two products, one per line.")
            return
        self.session, self.router = Session(id=-1, items=titles, titles=titles, bundles=()), None
        self._soon()

    def _dragged(self, place: int) -> None:
        """A slider was moved. Where weights are to sum to one, the others share what is left as they did before."""
        if self.silent:
            return
        weights = np.array([slider.value for slider in self.sliders])
        if self.shares.value:
            others = np.arange(len(weights)) != place
            left, before = 1 - weights[place], weights[others]
            weights[others] = left * (before / before.sum() if before.sum() else 1 / len(before))
            self.move_sliders(weights)
        self._set(tuple(weights.tolist()), self.chosen_layer)
        self._soon()

    def _soon(self) -> None:
        self.say("waiting for your hand to rest …", busy=True)
        self.later()

    def _follow(self) -> None:
        """Let the sliders show the weights in use: of one layer, or their mean over all."""
        if self.reading is None or self.later.waiting:
            return
        weights = self.reading.alpha.mean(0)
        if (layer := self.chosen_layer) is not None:
            weights = self.reading.alpha[self.model.layer_numbers.index(layer)]
        self.move_sliders(weights)
