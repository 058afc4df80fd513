"""The page: controls on one side, pictures on the other. Every control has a label."""

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, no_type_check

import gradio as gr
import numpy as np
from PIL import Image

from muse.apps.server.options import check_address
from muse.apps.settings import Settings
from muse.apps.web.options import Web
from muse.apps.web.studio import MOST_PICTURES, MOST_TRIED, Picture, Shown, Studio, small
from muse.apps.wishes import load, reword
from muse.canvas import Margins
from muse.requests import random_seeds
from muse.sampling import EditOptions, SamplingOptions

EXAMPLES = {
    "emoji": [
        "a red apple, 3d style",
        "an octopus on a sky blue background, flat style",
        "a fox, noto style",
        "a slice of pizza",
        "a green umbrella on a yellow background",
        "a pizza above a soccer ball",
    ]
}
"""Prompts to begin with, by the name of the model."""
MOST_PIXELS = 40_000_000
"""Of an upload."""
MOST_KEPT = 100
"""Pictures in the gallery of one visitor."""
LARGEST_SEED = 2**53 - 1
"""The numbers of a browser hold no larger one exactly."""
RANGES = {
    "steps": (1, 100),
    "guidance": (0, 20),
    "temperature": (0, 2),
    "choice_noise": (0, 20),
    "remask": (0, 1),
    "refresh": (1, 24),
}
"""The least and the most that the controls of options give."""
FILL, WIDEN, CHANGE, VARY = "Fill what is painted over", "Widen the picture", "Change the whole picture", "Vary it"
KINDS = (FILL, WIDEN, CHANGE, VARY)
STYLE = """
.gradio-container { max-width: 1200px !important; width: 100%; margin: auto }
.grid-wrap { max-height: none !important }
"""

READABLE = {
    "block_title_text_color": "*primary_700",
    "block_label_text_color": "*primary_700",
    "block_info_text_color": "*neutral_600",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}
"""Colours that stand out enough from what is behind them (WCAG 2, 4.5 to 1), where the theme's own do not."""


class Page:
    """What happens behind the controls; one for all visitors, so it keeps nothing of them."""

    def __init__(self, studio: Studio):
        self.studio, self.muse = studio, studio.muse

    # -- drawing ------------------------------------------------------------------------------------------------------

    @no_type_check  # checked while tests run, it would not look like a generator, which Gradio asks for
    def draw(
        self,
        prompt: str,
        is_literal: bool,
        negative: str,
        num: float,
        seed: float,
        is_random: bool,
        steps: float,
        guidance: float,
        ramp: Literal["linear", "constant"],
        sampler: Literal["confidence", "halton"],
        temperature: float,
        top_k: float | None,
        choice_noise: float,
        remask: float,
        refresh: float,
        superres_steps: float,
        superres_guidance: float,
        best_of: float,
        kept: list[Picture],
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Pictures as they come into being, then what a file says of the first, the seed to draw them again with, and
        the visitor's gallery."""
        with told():
            options = dataclasses.replace(
                self.muse.defaults,
                steps=int(steps),
                guidance=float(guidance),
                guidance_ramp=ramp,
                sampler=sampler,
                temperature=float(temperature),
                top_k=int(top_k) if top_k else None,
                choice_noise=float(choice_noise),
                remask=float(remask),
                refresh=int(refresh),
            )
            above = None
            if self.muse.superres is not None:
                more = {"steps": int(superres_steps), "guidance": float(superres_guidance)}
                above = dataclasses.replace(self.muse.superres_defaults, **more)
            seeds, avoided = seeds_from(seed, is_random, num, int(best_of)), negative.strip() or None
            drawn = self.reword(prompt, is_literal)
            shown = self.studio.draw(drawn, seeds, avoided, options, above, int(best_of))
            yield from self.show(shown, seeds[0], kept)

    def reword(self, prompt: str, is_literal: bool) -> str:
        """The prompt to be drawn; what was in no caption is told, if it is known."""
        drawn, note = reword(self.muse, prompt, is_literal)
        if note is not None:
            gr.Info(f"{note[0].upper()}{note[1:]}.")
        return drawn

    def show(self, shown: Iterator[Shown], seed: int, kept: list[Picture]) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Hand on what can be seen, of which nothing can be said before the end; then the pictures are kept for the
        visitor."""
        for each in shown:
            if not each.pictures:
                yield each.previews, None, gr.skip(), gr.skip()
                continue
            kept = [*each.pictures, *kept][:MOST_KEPT]
            captioned = [(str(picture.path), picture.caption) for picture in each.pictures]
            yield captioned, told_of(each.pictures[0]), seed, kept

    def load(self, path: str | None) -> list[Any]:
        """The controls as they were for a picture."""
        if path is None:
            return [gr.skip()] * 17
        with told(path):
            settings = self.studio.load(Path(path))
        options, above = settings.options, settings.superres_options or self.muse.superres_defaults
        if settings.model != self.muse.name:
            gr.Warning(f"It was drawn by another model, {settings.model!r}; this one will draw something else.")
        if (beyond := self.beyond(settings)) is not None:
            gr.Warning(
                f"It was drawn with {beyond}, for which this page has no control; here it will be another picture."
            )
        return [
            settings.prompt,
            True,  # that is the prompt that was drawn
            settings.negative or "",
            min(settings.seed, LARGEST_SEED),
            False,
            within("steps", options),
            within("guidance", options),
            options.guidance_ramp,
            options.sampler,
            within("temperature", options),
            options.top_k or 0,
            within("choice_noise", options),
            within("remask", options),
            within("refresh", options),
            within("steps", above),
            within("guidance", above),
            1,  # its seed has been chosen
        ]

    def beyond(self, settings: Settings) -> str | None:
        """What a picture was drawn with that the controls cannot say."""
        above, usual = settings.superres_options, self.muse.superres_defaults
        if settings.seed > LARGEST_SEED:
            return f"the seed {settings.seed}"
        for options in (settings.options, above) if above is not None else (settings.options,):
            for name in RANGES:
                if within(name, options) != getattr(options, name):
                    return f"{name.replace('_', ' ')} {getattr(options, name):g}"
        if above is None and self.muse.superres is not None:
            return "no super-resolution"
        same = {"steps": usual.steps, "guidance": usual.guidance}
        if above is not None and dataclasses.replace(above, **same) != usual:
            return "other options of super-resolution"
        return None

    # -- editing ------------------------------------------------------------------------------------------------------

    @no_type_check
    def edit(
        self,
        kind: str,
        canvas: dict[str, Any] | None,
        prompt: str,
        is_literal: bool,
        negative: str,
        num: float,
        seed: float,
        is_random: bool,
        left: float,
        right: float,
        top: float,
        bottom: float,
        iterations: float,
        strength: float,
        kept: list[Picture],
    ) -> Iterator[tuple[Any, Any, Any, Any, Any, Any]]:
        """As `draw`, and at the end the previews of the first picture and a slider over them."""
        frames: list[Image.Image] = []
        with told():
            seeds, avoided = seeds_from(seed, is_random, num), negative.strip() or None
            image, mask = painted(canvas)
            prompt, options = self.reword(prompt, is_literal), self.muse.defaults
            if avoided and not options.guidance:  # by which alone it acts; this tab has no slider for it
                options = dataclasses.replace(options, guidance=1.0)
            if kind == FILL:
                if mask.getbbox() is None:
                    raise ValueError("nothing is painted over; paint over what shall be filled")
                shown = self.studio.inpaint(image, mask, prompt, seeds, avoided, options)
            elif kind == WIDEN:
                margins = Margins(int(left), int(right), int(top), int(bottom))
                shown = self.studio.outpaint(image, margins, prompt, seeds, avoided, options)
            elif kind == CHANGE:
                shown = self.studio.edit(image, prompt, seeds, avoided, EditOptions(iterations=int(iterations)))
            else:
                shown = self.studio.vary(image, strength, prompt.strip() or None, seeds, avoided, options)
            frames.append(small(image))

            def noted() -> Iterator[Shown]:
                for each in shown:
                    frames.append(each.previews[0])
                    yield each

            for each in self.show(noted(), seeds[0], kept):
                yield *each, frames, gr.Slider(maximum=len(frames) - 1, value=len(frames) - 1)

    def frame(self, frames: list[Image.Image], index: float) -> Any:
        """One of the previews."""
        return frames[min(int(index), len(frames) - 1)] if frames else None

    # -- the gallery --------------------------------------------------------------------------------------------------

    def gallery(self, kept: list[Picture]) -> tuple[list[tuple[str, str]], list[Picture]]:
        """All pictures of a visitor, the newest first: as they are shown, and to be looked up."""
        there = [picture for picture in kept if picture.path.exists()]
        return [(str(picture.path), picture.caption) for picture in there], there

    def settings_of(self, shown: list[Picture], event: gr.SelectData) -> Any:
        """What the file of one of the pictures that are shown says of it."""
        return told_of(shown[event.index]) if event.index < len(shown) else gr.skip()


@contextmanager
def told(path: str = "") -> Iterator[None]:
    """What cannot be drawn is told on the page, in its one sentence; of an upload's path only its name."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError) as error:
        sentence = str(error).replace(path, f"The file {Path(path).name}") if path else str(error)
        sentence = sentence[:1].upper() + sentence[1:] + "."
        raise gr.Error(sentence, duration=None, print_exception=False) from error


def within(name: str, options: SamplingOptions) -> Any:
    """The value of an option, or the nearest that its control has."""
    least, most = RANGES[name]
    return min(max(getattr(options, name), least), most)


def seeds_from(seed: float | None, is_random: bool, num: float, tried: int = 1) -> list[int]:
    """Seeds counting up from one, so far from each other as are tried for each.
    Raises ValueError if there is none."""
    if seed is None and not is_random:
        raise ValueError("there is no seed; give a whole number, or tick the box for another one each time")
    first = random_seeds(1)[0] if is_random or seed is None else int(seed)
    return [first + i * tried for i in range(int(num))]


def painted(canvas: dict[str, Any] | None) -> tuple[Image.Image, Image.Image]:
    """The picture of an editor, and in white what is painted over it.
    Raises ValueError if there is no picture."""
    image = None if canvas is None else canvas.get("background")
    if canvas is None or image is None:
        raise ValueError("there is no picture to edit; drop one on the canvas, or upload it")
    is_painted = np.zeros((image.height, image.width), bool)
    for layer in canvas.get("layers") or []:
        is_painted |= np.asarray(layer.convert("RGBA").resize(image.size))[:, :, 3] > 0
    return image, Image.fromarray(is_painted.astype(np.uint8) * 255)


def told_of(picture: Picture) -> dict[str, Any]:
    """What a file says, for reading."""
    return {name: json.loads(text) if name.endswith("options") else text for name, text in picture.text.items()}


# -- the looks --------------------------------------------------------------------------------------------------------


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio."""
    page = Page(studio)
    with gr.Blocks(title="Muse", analytics_enabled=False, delete_cache=(3600, 86_400)) as blocks:
        kept = gr.State([])
        gr.Markdown(f"# Muse\nText to image by masked generative transformers. Model: **{studio.muse.name}**")
        with gr.Tab("Draw"):
            build_drawing(page, kept)
        with gr.Tab("Edit"):
            build_editing(page, kept)
        with gr.Tab("Gallery") as tab:
            build_gallery(page, kept, tab)
    return blocks.queue(max_size=64, default_concurrency_limit=MOST_PICTURES)


def build_drawing(page: Page, kept: gr.State) -> None:
    """Prompt and options, and the pictures."""
    defaults, above, has_superres = page.muse.defaults, page.muse.superres_defaults, page.muse.superres is not None
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox("", label="Prompt", placeholder="What the picture shows", lines=2, max_lines=6)
            if page.muse.name in EXAMPLES:
                gr.Examples([[text] for text in EXAMPLES[page.muse.name]], [prompt], label="Examples")
            is_literal = build_literal("Draw these words as they are")
            negative = gr.Textbox("", label="Negative prompt", placeholder="Not this; needs guidance", max_lines=4)
            num, seed, is_random = build_seeds()
            with gr.Accordion("More options", open=False):
                steps = slider_of("steps", defaults, 1, "Steps")
                guidance = slider_of("guidance", defaults, 0.1, "Guidance: how strongly it is followed")
                ramp = gr.Radio(["linear", "constant"], value=defaults.guidance_ramp, label="Guidance over the steps")
                sampler = gr.Radio(["confidence", "halton"], value=defaults.sampler, label="What is revealed first")
                temperature = slider_of("temperature", defaults, 0.05, "Temperature")
                top_k = gr.Number(defaults.top_k or 0, precision=0, minimum=0, label="Likeliest codes only; 0 for all")
                noise = slider_of("choice_noise", defaults, 0.1, "Variety of the order")
                remask = slider_of("remask", defaults, 0.05, "Share of the less likely tokens that is drawn again")
                refresh = slider_of("refresh", defaults, 1, "Steps from one whole one to the next; 1 is exact")
                with gr.Group(visible=has_superres):
                    superres_steps = slider_of("steps", above, 1, "Steps of super-resolution")
                    superres_guidance = slider_of("guidance", above, 0.1, "Guidance of super-resolution")
                best_of = gr.Slider(1, MOST_TRIED, 1, step=1, label="Best of so many seeds, as the model itself has it")
            with gr.Row():
                start = gr.Button("Draw", variant="primary")
                stop = gr.Button("Stop")
            file = gr.File(label="Load settings from a PNG that Muse has drawn", file_types=[".png"], height=120)
        with gr.Column(scale=3, min_width=300):
            pictures = pictures_of("Pictures", columns=2)
            said = gr.JSON(label="Settings of the first picture")
    options = [steps, guidance, ramp, sampler, temperature, top_k, noise, remask, refresh]
    options += [superres_steps, superres_guidance, best_of]
    given: list[Any] = [prompt, is_literal, negative, num, seed, is_random, *options, kept]
    shown: list[Any] = [pictures, said, seed, kept]
    running = gr.on([start.click, prompt.submit], page.draw, given, shown, api_name="draw", show_progress_on=pictures)
    stop.click(None, cancels=[running])
    file.change(page.load, [file], [prompt, is_literal, negative, seed, is_random, *options], api_name="load")


def build_editing(page: Page, kept: gr.State) -> None:
    """A canvas to paint on, what to do with it, and the pictures."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            kind = gr.Radio(list(KINDS), value=FILL, label="What to do")
            canvas = gr.ImageEditor(
                label="Picture to edit",
                type="pil",
                format="png",
                sources=["upload", "clipboard"],
                brush=gr.Brush(colors=["#e11d48"], color_mode="fixed"),
                layers=False,
                transforms=(),
                height=420,
            )
            prompt = gr.Textbox("", label="Prompt of the edit", placeholder="What the picture shall show", lines=2)
            is_literal = build_literal("Take the words of the edit as they are")
            negative = gr.Textbox("", label="Negative prompt of the edit", placeholder="What it shall not show")
            with gr.Group(visible=False) as of_margins:
                margins = [
                    gr.Slider(0, 1024, 0, step=1, label=f"Pixels {side}")
                    for side in ("on the left", "on the right", "at the top", "at the bottom")
                ]
            with gr.Group(visible=False) as of_iterations:
                iterations = gr.Slider(1, 200, EditOptions().iterations, step=1, label="Iterations: more changes more")
            with gr.Group(visible=False) as of_strength:
                strength = gr.Slider(0, 1, 0.5, step=0.05, label="Strength: 0 keeps it, 1 draws all anew")
            num, seed, is_random = build_seeds()
            with gr.Row():
                start = gr.Button("Edit", variant="primary")
                stop = gr.Button("Stop")
        with gr.Column(scale=3, min_width=300):
            pictures = pictures_of("Edited pictures", columns=2)
            frames = gr.State([])
            slider = gr.Slider(0, 1, 0, step=1, label="On the way: from the given picture to the result")
            frame = gr.Image(
                label="The first picture on the way",
                buttons=["download", "fullscreen"],
                format="png",
                interactive=False,
                height=300,
            )
            said = gr.JSON(label="Settings of the first edited picture")
    groups = {WIDEN: of_margins, CHANGE: of_iterations, VARY: of_strength}
    kind.change(
        lambda chosen: [gr.Group(visible=name == chosen) for name in groups],
        [kind],
        list(groups.values()),
        api_visibility="private",
    )
    given: list[Any] = [
        kind,
        canvas,
        prompt,
        is_literal,
        negative,
        num,
        seed,
        is_random,
        *margins,
        iterations,
        strength,
        kept,
    ]
    shown: list[Any] = [pictures, said, seed, kept, frames, slider]
    running = start.click(page.edit, given, shown, api_name="edit", show_progress_on=pictures)
    stop.click(None, cancels=[running])
    slider.change(page.frame, [frames, slider], [frame], api_visibility="private", show_progress="hidden")


def slider_of(name: str, options: SamplingOptions, step: float, label: str) -> gr.Slider:
    """The control of an option, as it is by default."""
    return gr.Slider(*RANGES[name], getattr(options, name), step=step, label=label)


def pictures_of(label: str, columns: int) -> gr.Gallery:
    """Pictures side by side, each whole and as PNG files to take away."""
    return gr.Gallery(
        label=label,
        buttons=["download", "download_all", "fullscreen"],
        columns=columns,
        format="png",
        object_fit="contain",
        fit_columns=False,
        height="auto",
    )


def build_gallery(page: Page, kept: gr.State, tab: gr.Tab) -> None:
    """All pictures of this visit, and the settings of the one that is chosen."""
    gallery = pictures_of("Pictures of this visit", columns=4)
    said = gr.JSON(label="Settings of the chosen picture")
    shown = gr.State([])  # while the gallery stays as it is, more may be drawn
    tab.select(page.gallery, [kept], [gallery, shown], api_visibility="private")
    gallery.select(page.settings_of, [shown], [said], api_visibility="private")


def build_literal(label: str) -> gr.Checkbox:
    """Whether a prompt is left in the visitor's own words."""
    return gr.Checkbox(False, label=label, info="Else they are put in words that the model's captions held")


def build_seeds() -> tuple[gr.Slider, gr.Number, gr.Checkbox]:
    """How many pictures, and from which seed on."""
    num = gr.Slider(1, MOST_PICTURES, 1, step=1, label="How many pictures")
    with gr.Row():
        seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=LARGEST_SEED, min_width=140)
        is_random = gr.Checkbox(label="Another seed each time", value=True, min_width=140)
    return num, seed, is_random


def launch_options(options: Web) -> dict[str, Any]:
    """How Gradio serves the page: nothing leaves this machine, and large uploads are refused."""
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return {
        "server_name": options.host,
        "server_port": options.port,
        "inbrowser": options.open,
        "share": False,
        "max_file_size": "16mb",
        "theme": gr.themes.Soft(font=fonts[0], font_mono=fonts[1]).set(**READABLE),
        "css": STYLE,
        "ssr_mode": False,
        "enable_monitoring": False,
        "footer_links": [],
    }


def serve(options: Web) -> None:
    """Load the model and serve its page until stopped.
    Raises ValueError or OSError if the model cannot be read or the port is taken."""
    check_address(options.host, options.port)
    studio = Studio(load(options.model, options.precision, options.graphs))
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Gradio unpacks uploads by Pillow, which refuses twice that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C does: the folder goes
    try:
        build(studio).launch(**launch_options(options))
    finally:
        studio.close()
