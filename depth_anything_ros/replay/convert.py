# SPDX-License-Identifier: Apache-2.0
"""One bag, from beginning to end: read ahead, predict, refine in order, write behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rosbags.interfaces import (
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from ..geometry import AdaptiveRange
from ..inference import Prediction
from ..messages.bridge import ImageDecoder, choose_decoder
from ..outputs import Outputs
from ..pipeline import Refined, Refiner
from ..stream.focal import focal_problem
from ..stream.topics import LACKS, OUTPUT_TYPES, explained, lacks_of, make_message
from .frames import Ahead, Frames, Item, Job, submitted
from .messages import BagError, Recorded, Topic, to_cdr, type_name
from .parts import Behind, PartialBag, Progress, finished
from .plan import Plan
from .predictors import Predictor
from .room import Room

_FOREVER = QosTime(9223372036, 854775807)  # DDS's infinite duration, as rosbag2 writes it
_OFFERED = Qos(  # as the node offers its outputs
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)
_AHEAD = 512 << 20  # bytes that are read, decoded and predicted ahead
_CUT_IMAGES = 500  # after which a part is finished, whatever its size: no interruption costs more


class _Memory:
    """What the frames of one camera leave for the next."""

    def __init__(self):
        self.refiner, self.relative_range = Refiner(), AdaptiveRange()


class Conversion:
    """The work on one bag.

    Args:
        tell: told, after each image, how many there have been, and how many of them in earlier runs.

    Attributes:
        images_before: of earlier runs, which this one goes on with.
        was_finished: whether they left nothing to do.
    """

    def __init__(self, plan: Plan, predictor: Predictor, tell: Callable[[int, int], None] = lambda images, before: None):
        self._plan, self._predictor, self._tell = plan, predictor, tell
        self._decode: ImageDecoder = choose_decoder(plan.settings.image_bridge)[0]
        self._memory = {name: _Memory() for name in plan.cameras}
        self._problems: dict[str, list] = {}
        self._images = self._with_depth = self.images_before = 0
        self.was_finished = False

    def run(self, output: Path, resume: bool = False) -> Progress:
        """Make the bag; what came of it.

        Raises:
            BagError: it cannot be written, or there is nothing to write.
        """
        plan = self._plan
        topics, before = self._topics(), finished(output, plan.fingerprint) if resume else None
        if before:
            self.images_before, self.was_finished = before.images, True
            return before
        with PartialBag(output, plan.fingerprint, plan.storage, plan.request.compressed, resume) as bag:
            done = bag.progress.done
            if bag.memory:
                self._memory = pickle.loads(bag.memory)
            self._images = self.images_before = bag.progress.images
            self._with_depth = bag.progress.with_depth
            self._problems.update(bag.progress.problems)
            self._tell(self._images, self.images_before)
            if not bag.progress.ended:
                with Behind(bag) as behind:
                    self._write(behind, topics, done)
            bag.finish()
        return bag.progress

    def _write(self, behind: Behind, topics: list[Topic], done: int) -> None:
        plan, frames = self._plan, Frames(self._plan, self._decode, done)
        kept = set() if plan.request.only_depth else plan.bag.topics.keys() - plan.outputs
        behind.do("open_part", topics)
        size, since = 0, self._images
        room = Room(_AHEAD, 3 * self._predictor.batch * (self._predictor.ahead + 2))  # an image seldom comes alone
        with Ahead(submitted(frames.items(), self._predictor), lambda item: item.size, room) as items:
            for item in items:
                if size > plan.request.split_bytes or self._images - since >= _CUT_IMAGES:
                    behind.do("close_part", self._progress(done), pickle.dumps(self._memory))
                    behind.do("open_part", topics)
                    size, since = 0, self._images
                written = [item.recorded] if item.recorded.topic in kept else []
                written += self._depth_of(item)
                for recorded in written:
                    behind.write(recorded)
                    size += len(recorded.cdr)
                done += 1
        if not done:
            raise BagError(f"there is nothing to write of '{plan.bag.path}'")
        for problem in sorted(frames.context.problems):
            self._note("", "not taken in", problem)
        behind.do("close_part", replace(self._progress(done), ended=True), pickle.dumps(self._memory))

    def _progress(self, done: int) -> Progress:
        return Progress(done, self._images, self._with_depth, {what: list(said) for what, said in self._problems.items()})

    def _topics(self) -> list[Topic]:
        """Of the output: what was in the bag, if it is kept, and what is new."""
        plan = self._plan
        ours = plan.outputs
        kept = [] if plan.request.only_depth else [topic for topic in plan.bag.topics.values() if topic.name not in ours]
        none = MessageDefinition(MessageDefinitionFormat.NONE, "")
        for camera in plan.cameras:
            for output in plan.topics:
                kept.append(Topic(plan.topic(camera, output), type_name(OUTPUT_TYPES[output]), none, "", (_OFFERED,)))
        return kept

    def _depth_of(self, item: Item) -> list[Recorded]:
        """The messages of an image's depth."""
        if item.refused:
            self._images += 1
            self._note(*item.refused)
        if item.job is None:
            return []
        self._images += 1
        prediction = item.job.prediction()
        if isinstance(prediction, str):
            self._note(item.job.camera, "network", prediction)
            return []
        made = self._refined(item.job, item.recorded.time_ns, prediction)
        names = {recorded.topic for recorded in made}
        self._with_depth += all(self._plan.topic(item.job.camera, output) in names for output in self._plan.required)
        self._tell(self._images, self.images_before)
        return made

    def _refined(self, job: Job, time_ns: int, prediction: Prediction) -> list[Recorded]:
        plan, memory, image = self._plan, self._memory[job.camera], job.image
        prediction = prediction.turned(plan.settings.cameras[job.camera].rotation)
        refined = memory.refiner.refine(image.frame, prediction, plan.settings.refine, job.side)
        image = image.with_estimate(prediction)
        if prediction.estimated:
            self._note(job.camera, *focal_problem(plan.settings.model, prediction, image.problem))
        outputs = Outputs(image.frame, prediction, refined, job.side, plan.settings.outputs, memory.relative_range)
        made = []
        for output in plan.topics:
            lacks = lacks_of(output, outputs, image.info)
            if not lacks:
                message = make_message(output, image.header, outputs, image.info)
                made.append(Recorded(plan.topic(job.camera, output), time_ns, to_cdr(message)))
            else:
                self._note(job.camera, *self._lack(lacks, job, prediction, refined, output))
        return made

    def _lack(self, lacks: set[str], job: Job, prediction: Prediction, refined: Refined, output: str) -> tuple[str, str]:
        need = next((need for need in LACKS if need in lacks), "")
        problem = focal_problem(self._plan.settings.model, prediction, job.image.problem)
        if need:
            kind, text = explained(need, job.image.problem, job.missing)
        elif problem:
            kind, text = problem
        elif "relative" in lacks:
            kind, text = "no inverse depth", "the network says metres"
        elif refined.scale:
            kind, text = "no scale", refined.scale.problem
        else:
            kind, text = "no metres", "the network gives none"
        return kind, f"{text}; without it there is no {output}"

    def _note(self, camera: str, kind: str, text: str) -> None:
        said = self._problems.setdefault(f"{camera}: {kind}" if camera else kind, [0, text])
        said[0] += 1
