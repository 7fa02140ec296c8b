"""Images and videos of rows: every way to name one, the same pixels from each, and a plain word about a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from morl.data.mixture import Mixture
from morl.data.prompt_set import load_prompts
from morl.errors import BadMediaError, DataError, MissingExtraError
from morl.media.items import Image, Limits, Video
from morl.preflight.recipe_check import check
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards.parsing.image_size import Size, image_size
from morl.track.jsonl_files import plain


def noise(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(path: Path, image: PIL.Image.Image | None = None, **options) -> Path:
    (image or noise(60, 40)).save(path, **options)
    return path


def pixels(image: Image) -> np.ndarray:
    return np.asarray(image.load())


def test_every_way_to_name_an_image_gives_the_same_pixels(tmp_path):
    path = saved(tmp_path / "a.png")
    data = path.read_bytes()
    named = ["a.png", path, data, {"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}, noise(60, 40)]
    for value in named:
        image = Image.of(value, tmp_path)
        assert (image.width, image.height) == (60, 40)
        assert np.array_equal(pixels(image), np.asarray(noise(60, 40)))
    assert Image.of("a.png", tmp_path).name == str(path)
    assert Image.of(data).name == Image.of(named[3]).name != Image.of(noise(60, 40, seed=1)).name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_images_are_turned_upright_as_their_metadata_ask(tmp_path, orientation, suffix):
    from PIL import ImageOps

    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", exif=exif)
    image = Image.of(path)
    upright = ImageOps.exif_transpose(PIL.Image.open(path)).convert("RGB")
    assert (image.width, image.height) == upright.size == ((40, 60) if orientation >= 5 else (60, 40))
    assert np.array_equal(pixels(image), np.asarray(upright))
    for told in (image, str(path), {"bytes": path.read_bytes()}):
        assert image_size((told,), {}) == Size(*upright.size)


def test_all_modes_become_rgb(tmp_path):
    grey = np.linspace(0, 255, 60 * 40).reshape(40, 60).astype(np.uint8)
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    for mode in ("1", "L", "P", "RGBA", "LA", "CMYK"):
        source = PIL.Image.fromarray(grey).convert("L" if mode == "LA" else "RGB").convert(mode)
        shown = pixels(Image.of(saved(tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}", source)))
        assert shown.shape == (40, 60, 3)
        if mode not in ("1", "P"):
            assert np.abs(shown[..., 0].astype(int) - grey).max() <= 4, mode
    assert np.abs(pixels(Image.of(saved(tmp_path / "16.png", deep)))[..., 1].astype(int) - grey).max() <= 1
    clear = PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (pixels(Image.of(clear)) == 255).all()


def test_of_an_animation_the_first_frame_is_shown(tmp_path):
    first, *rest = (PIL.Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue"))
    path = saved(tmp_path / "a.gif", first, save_all=True, append_images=rest)
    assert (pixels(Image.of(path)) == (255, 0, 0)).all()


def broken(folder: Path) -> dict[str, object]:
    """Every kind of bad image, by what is said of it."""
    whole = saved(folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").touch()
    bomb, smaller = PIL.Image.new("1", (20_000, 10_000)), PIL.Image.new("1", (10_000, 10_000))
    return {
        "cut.png": "cut.png cannot be read",
        "text.png": "text.png cannot be read: cannot identify",
        "empty.png": "empty.png cannot be read",
        "gone.png": f"no such image: gone.png; paths are relative to {folder}",
        str(saved(folder / "dot.png", noise(1, 1))): "1 x 1 pixels: too small",
        str(saved(folder / "strip.png", noise(20_000, 10))): "20000 x 10 pixels: one side is more than 200 times",
        str(saved(folder / "bomb.png", bomb)): "more pixels than the limit of 89478485 (a decompression bomb?)",
        str(saved(folder / "large.png", smaller)): "10000 x 10000 pixels: more than the limit of 89478485",
        "https://example.org/a.png": "given by 'https:' is not read: set data.media.downloads to a folder",
        "data:image/png;base64,AAAA": "given by 'data:' is not read: store its bytes",
    }


def test_bad_images_say_what_is_wrong(tmp_path):
    for value, told in broken(tmp_path).items():
        with pytest.raises(BadMediaError) as raised:
            Image.of(value, tmp_path).check()
        assert told in str(raised.value)
    with pytest.raises(BadMediaError, match="not int"):
        Image.of(3)
    with pytest.raises(BadMediaError, match="floating-point"):
        Image.of(PIL.Image.new("F", (9, 9))).load()


def test_a_bomb_is_refused_by_its_header_alone(tmp_path):
    import tracemalloc

    saved(tmp_path / "bomb.png", PIL.Image.new("1", (20_000, 10_000)))
    tracemalloc.start()
    with pytest.raises(BadMediaError, match="decompression bomb"):
        Image.of("bomb.png", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def frames(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        saved(folder / f"frame-{number}.png", PIL.Image.new("RGB", (30, 20), (number, 0, 0)))
    return folder


def numbers(video: Video) -> list[int]:
    """Which frames of `frames` are shown."""
    return video.load()[:, 0, 0, 0].tolist()


def test_every_way_to_name_frames_gives_the_same_video(tmp_path):
    folder = frames(tmp_path / "clip", 12)
    listed = [f"clip/frame-{i}.png" for i in range(12)]
    for value in ("clip", folder, listed, [(tmp_path / name).read_bytes() for name in listed]):
        video = Video.of(value, tmp_path, Limits(fps=2.0))
        assert (video.width, video.height, video.frames, video.shown_fps) == (30, 20, 12, 2.0)
        assert numbers(video) == list(range(12))


def test_frames_are_chosen_by_rate_and_number(tmp_path):
    frames(tmp_path / "clip", 12)
    six_a_second = {"frames": "clip", "fps": 6}
    video = Video.of(six_a_second, tmp_path, Limits(fps=3))
    assert numbers(video) == [0, 2, 4, 7, 9, 11]
    assert video.shown_fps == 3
    longer = Video.of(six_a_second, tmp_path, Limits(fps=100, max_frames=4))
    assert (numbers(longer), longer.shown_fps) == ([0, 4, 7, 11], 2.0)
    assert numbers(Video.of(six_a_second, tmp_path, Limits(max_frames=1))) == [0]


def test_bad_videos_say_what_is_wrong(tmp_path):
    (tmp_path / "none").mkdir()
    frames(tmp_path / "mixed", 2)
    saved(tmp_path / "mixed" / "frame-9.png", noise(31, 20))
    for value, told in {
        "none": "the video has no frames",
        "mixed": "differ in size: 30 x 20 and 31 x 20",
        "gone.mp4": "no such video: gone.mp4",
    }.items():
        with pytest.raises(BadMediaError, match=told):
            Video.of(value, tmp_path)
    with pytest.raises(BadMediaError, match="fps of a video is a number of frames a second, not 'fast'"):
        Video.of({"frames": "mixed", "fps": "fast"}, tmp_path)
    with pytest.raises(BadMediaError, match="a file, a folder or a list of frames, not Image"):
        Video.of(noise(30, 20))
    many = Video.of([noise(3000, 3000)] * 100, tmp_path, Limits(max_frames=100))
    with pytest.raises(BadMediaError, match=r"lower media\.max_frames"):
        many.load()


def write_video(path: Path, count: int = 30, rate: int = 10) -> Path:
    """Frames that get brighter by 8 each."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            grey = np.full((48, 64, 3), 8 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_video_files_give_the_frames_of_their_seconds(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}")
    for value in (path, path.read_bytes()):
        video = Video.of(value, None, Limits(fps=2))
        assert (video.width, video.height, video.frames, video.recorded_fps) == (64, 48, 30, 10)
        assert video.shown == [0, 6, 12, 17, 23, 29]
        assert video.shown_fps == 2.0
        brightness = video.load().mean(axis=(1, 2, 3))
        assert np.abs(brightness - [8 * number for number in video.shown]).max() < 6


def test_broken_video_files_say_so(tmp_path):
    whole = write_video(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(BadMediaError, match="cannot be read"):
        Video.of(whole[: len(whole) // 2])
    with pytest.raises(BadMediaError, match="cannot be read"):
        Video.of(b"no video at all")
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(BadMediaError, match="cannot be read"):
        Video.of(playlist)


def test_without_pyav_video_files_say_what_to_install(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"morl-rl\[video\]"):
        Video.of(b"anything")


def objective(path: Path, prompt: list | None = None, **data) -> ObjectiveSpec:
    return ObjectiveSpec(
        share=1,
        data={"source": "jsonl", **data, "path": str(path)},
        prompt=prompt or [{"image": "{{ image }}"}, "What is it?"],
        gold="{{ n }}",
        rewards=[{"use": "exact"}],
    )


def rows(folder: Path, values: list) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"image": value, "n": n}) + "\n" for n, value in enumerate(values)))
    return path


def test_paths_in_rows_are_relative_to_the_data_file(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    saved(tmp_path / "data" / "a.png")
    path = rows(tmp_path / "data", ["a.png"])
    monkeypatch.chdir(tmp_path)
    for data in (path, path.relative_to(tmp_path)):
        prompt = load_prompts(objective(data, media={"max_pixels": 3000}), "o")[0]
        assert prompt.media[0].limits == Limits(max_pixels=3000)
        assert pixels(prompt.media[0]).shape == (40, 60, 3)


def test_images_of_datasets_stay_encoded_until_they_are_wanted(tmp_path):
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "more": datasets.List(datasets.Image()), "n": datasets.Value("int64")}
    )
    table = datasets.Dataset.from_dict(
        {"image": [noise(60, 40)], "more": [[noise(20, 20, seed=2)]], "n": [0]}, features=features
    )
    table.save_to_disk(tmp_path / "disk")
    table.to_parquet(tmp_path / "a.parquet")
    prompt = [{"image": "{{ image }}"}, {"image": "{{ more[0] }}"}, "What?"]
    for data in ({"source": "huggingface", "path": "disk"}, {"source": "parquet", "path": "a.parquet"}):
        spec = objective(tmp_path / data["path"], prompt, source=data["source"])
        made = load_prompts(spec, "o")[0]
        assert all(isinstance(image.source, bytes) for image in made.media)
        assert np.array_equal(pixels(made.media[0]), np.asarray(noise(60, 40)))
        assert np.array_equal(pixels(made.media[1]), np.asarray(noise(20, 20, seed=2)))
        assert made.meta["n"] == 0
        assert len(json.dumps(dict(made.meta))) < 300  # names, not images


def test_samples_on_disk_name_images_and_hold_none(tmp_path):
    path = saved(tmp_path / "a.png")
    named = plain([Image.of(path), Image.of(path.read_bytes()), Video.of([path, path])])
    assert named[0] == str(path)
    assert named[1].startswith("sha256:")
    assert named[2] == f"{path} … {path}"


def test_check_names_the_row_of_each_bad_image_or_counts_it(tmp_path, capsys):
    bad = broken(tmp_path)
    path = rows(tmp_path, ["whole.png", *bad])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"""
run: {{name: r, steps: 1}}
model: {{path: nowhere}}
objectives:
  o:
    share: 1
    data: {{source: jsonl, path: {path}}}
    prompt: [{{image: "{{{{ image }}}}"}}, "What?"]
    gold: "{{{{ n }}}}"
    rewards: [{{use: exact}}]
rollout: {{prompts_per_step: 1, samples_per_prompt: 2, max_new_tokens: 4}}
"""
    )
    report = check(recipe)
    assert [problem.where for problem in report.data] == [f"{path}:{line}" for line in range(2, 2 + len(bad))]
    assert all(told in problem.message for problem, told in zip(report.data, bad.values(), strict=True))
    skipping = check(recipe, ["objectives.o.data.bad_media=skip"])
    assert (skipping.exit_code, skipping.rows, skipping.skipped) == (0, 1, len(bad))


def test_a_mixture_passes_over_bad_images_and_goes_on_the_same_after_a_restart(tmp_path):
    saved(tmp_path / "good.png")
    broken(tmp_path)
    path = rows(tmp_path, ["good.png", "cut.png", "good.png", "gone.png", "good.png"])

    def mixture() -> Mixture:
        return Mixture({"o": load_prompts(objective(path, bad_media="skip"), "o")}, {"o": 1.0}, seed=0)

    whole = mixture()
    drawn = [prompt.gold for prompt in whole.draw(9)]
    assert all(sorted(drawn[i : i + 3]) == [0, 2, 4] for i in (0, 3, 6))
    assert 4 <= whole.passed_over["o"] <= 6
    first = mixture()
    early = [prompt.gold for prompt in first.draw(4)]
    second = mixture()
    second.restore(json.loads(json.dumps(first.state())))
    assert early + [prompt.gold for prompt in second.draw(5)] == drawn
    with pytest.raises(DataError, match=r"rows\.jsonl:4: no such image"):
        Mixture({"o": load_prompts(objective(path), "o")}, {"o": 1.0}, seed=0).draw(5)
    hopeless = load_prompts(objective(rows(tmp_path, ["gone.png"] * 3), bad_media="skip"), "o")
    with pytest.raises(DataError, match="none of its 3 rows can be used"):
        Mixture({"o": hopeless}, {"o": 1.0}, seed=0).draw(1)
