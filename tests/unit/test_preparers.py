"""Each model's own preparation of the same views."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torchvision.transforms.v2.functional import normalize, to_dtype

from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.data.preparing import LogMelPreparer, TextPreparer, VisionPreparer, WaveformPreparer, prepared
from raydistill.student.vocabulary import train_tokenizer


def pictures(pixels: np.ndarray) -> ViewBatch:
    return ViewBatch("vision", pixels, np.zeros(len(pixels), np.int64), np.arange(len(pixels)), 0)


def sounds(clips: list[np.ndarray], rate: int = 8_000) -> ViewBatch:
    waves = [np.asarray(clip, dtype=np.float32) for clip in clips]
    return ViewBatch("speech", waves, np.zeros(len(clips), np.int64), np.arange(len(clips)), 0, rate)


def sine(pitch: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def noise(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, length).astype(np.float32)


def test_pixels_are_scaled_and_normalised_a_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    values = VisionPreparer(6, mean, std, 3)(pictures(pixels))["pixel_values"]
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_torchvisions_normalize_to_the_last_bit(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, channels), dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    repeated = torch.from_numpy(np.repeat(pixels, 3 // channels, axis=3)).permute(0, 3, 1, 2)
    values = VisionPreparer(6, tuple(mean), tuple(std), 3)(pictures(pixels))["pixel_values"]
    torch.testing.assert_close(values, normalize(to_dtype(repeated, scale=True), mean, std), rtol=0, atol=0)


def test_a_preparation_of_ones_own_is_called_with_the_views_alone() -> None:
    views = pictures(np.zeros((2, 6, 6, 3), np.uint8))
    found = prepared(lambda views: {"rows": torch.full((len(views),), 7)}, views, torch.device("cpu"))
    assert found["rows"].tolist() == [7, 7]

    class Doubled(VisionPreparer):
        def __call__(self, views: ViewBatch) -> dict[str, torch.Tensor]:
            return {"pixel_values": 2 * super().__call__(views)["pixel_values"]}

    views = pictures(np.full((1, 6, 6, 3), 255, np.uint8))
    found = prepared(Doubled(6, (0.0,) * 3, (1.0,) * 3, 3), views, torch.device("cpu"))
    assert (found["pixel_values"] == 2).all()


def test_statistics_in_double_precision_leave_pixels_in_single() -> None:
    views = pictures(np.full((1, 6, 6, 3), 255, np.uint8))
    statistics = tuple(np.full(3, 0.5))
    assert VisionPreparer(6, statistics, statistics, 3)(views)["pixel_values"].dtype == torch.float32
    with pytest.raises(ValueError, match="divide by zero"):
        VisionPreparer(6, statistics, (0.5, 0.0, 0.5), 3)


def test_inputs_are_made_wherever_the_model_is() -> None:
    """On `meta`, where all shapes are right and nothing is computed."""
    meta = torch.device("meta")
    for prepare, views in (
        (VisionPreparer(5, (0.5,) * 3, (0.5,) * 3, 3), pictures(np.zeros((2, 6, 6, 1), np.uint8))),
        (WaveformPreparer(4_000, 0.5), sounds([noise(900, 0), noise(3_000, 1)])),
        (LogMelPreparer(8_000, 0.5, 16), sounds([noise(900, 0), noise(3_000, 1)])),
    ):
        here, there = prepare(views), prepared(prepare, views, meta)
        assert {key: value.shape for key, value in there.items()} == {key: each.shape for key, each in here.items()}
        assert all(value.device == meta for value in there.values())


def test_grey_views_fill_three_channels_and_colour_views_one() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1), dtype=np.uint8)
    three = VisionPreparer(6, (0.0,) * 3, (1.0,) * 3, 3)(pictures(grey))["pixel_values"]
    np.testing.assert_allclose(three.numpy(), np.repeat(grey, 3, axis=3).transpose(0, 3, 1, 2) / 255, atol=1e-6)
    green = np.zeros((1, 6, 6, 3), np.uint8)
    green[..., 1] = 255
    one = VisionPreparer(6, (0.0,), (1.0,), 1)(pictures(green))["pixel_values"]
    assert one.shape == (1, 1, 6, 6) and one.mean().item() == pytest.approx(0.587, abs=0.01)


@pytest.mark.parametrize("size", [4, 16])
def test_pictures_are_resized_to_what_the_model_sees(size: int) -> None:
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    pixels[:, :, 4:] = 255
    values = VisionPreparer(size, (0.0,) * 3, (1.0,) * 3, 3)(pictures(pixels))["pixel_values"]
    assert values.shape == (1, 3, size, size)
    assert values[..., 0].max() < 0.1 and values[..., -1].min() > 0.9


def test_teacher_and_student_with_different_tokenizers_read_the_same_text(tiny_data: dict[str, TaskData]) -> None:
    views = tiny_data["mood"].train.views(range(6))
    texts = [str(text) for text in views.inputs]
    tokenizers = [tiny.word_tokenizer(), train_tokenizer((text for text, _ in tiny.texts(60)), 200)]
    assert tokenizers[0].get_vocab() != tokenizers[1].get_vocab()
    for tokenizer in tokenizers:
        prepared = TextPreparer(tokenizer, 32)(views)
        assert tokenizer.batch_decode(prepared["input_ids"], skip_special_tokens=True) == texts


def test_texts_are_padded_to_the_longest_of_the_batch_and_cut_to_the_maximum() -> None:
    views = ViewBatch("text", ["film", "the film was fine", "a " * 50], np.zeros(3, np.int64), np.arange(3), 0)
    tokenizer = tiny.word_tokenizer()
    prepared = TextPreparer(tokenizer, 7)(views)
    assert prepared["input_ids"].shape == (3, 7)
    assert prepared["attention_mask"].sum(dim=1).tolist() == [1, 4, 7]
    assert (prepared["input_ids"][prepared["attention_mask"] == 0] == tokenizer.pad_token_id).all()


def test_waveforms_have_zero_mean_and_unit_variance_over_their_own_samples() -> None:
    clips = [noise(500, 0) * 0.1 + 0.3, noise(1_200, 1)]
    prepared = WaveformPreparer(8_000, 1.0)(sounds(clips))
    assert prepared["input_values"].shape == (2, 1_200)
    assert prepared["attention_mask"].sum(dim=1).tolist() == [500, 1_200]
    for row, clip in enumerate(clips):
        expected = (clip - clip.mean()) / clip.std()
        np.testing.assert_allclose(prepared["input_values"][row, : len(clip)].numpy(), expected, atol=1e-3)
    assert not prepared["input_values"][0, 500:].any()


def test_silence_is_prepared_without_nan() -> None:
    silence = sounds([np.zeros(400), noise(800, 0)])
    for prepare in (WaveformPreparer(8_000, 1.0), LogMelPreparer(8_000, 1.0, 16)):
        assert all(torch.isfinite(value.float()).all() for value in prepare(silence).values())


@pytest.mark.parametrize("rate", [4_000, 16_000])
def test_another_rate_keeps_duration_and_pitch(rate: int) -> None:
    prepared = WaveformPreparer(rate, 2.0)(sounds([sine(400, 1.0, 8_000)]))
    wave = prepared["input_values"][0].numpy()
    assert len(wave) == rate
    assert np.abs(np.fft.rfft(wave)).argmax() == pytest.approx(400, abs=1)


def test_waveforms_are_cut_to_the_longest_that_the_model_hears() -> None:
    assert WaveformPreparer(8_000, 0.1)(sounds([noise(8_000, 0)]))["input_values"].shape == (1, 800)


@pytest.mark.parametrize("length", [1, 79, 80, 1_001, 4_000])
def test_log_mel_of_a_clip_is_the_same_alone_and_beside_longer_clips(length: int) -> None:
    prepare = LogMelPreparer(8_000, 0.5, 16)
    clip = noise(length, 0)
    alone = prepare(sounds([clip]))
    together = prepare(sounds([noise(4_000, 1), clip, noise(300, 2)]))
    torch.testing.assert_close(together["log_mel"][1], alone["log_mel"][0])
    assert torch.equal(together["frame_mask"][1], alone["frame_mask"][0])


def test_log_mel_has_a_frame_every_ten_milliseconds_normalised_over_the_real_ones() -> None:
    prepared = LogMelPreparer(8_000, 0.5, 16)(sounds([noise(1_600, 0), noise(4_000, 1)]))
    assert prepared["log_mel"].shape == (2, 51, 16) and prepared["frame_mask"].sum(dim=1).tolist() == [21, 51]
    for values, mask in zip(prepared["log_mel"], prepared["frame_mask"], strict=True):
        assert values[mask].mean().abs() < 1e-4 and values[mask].std(correction=0) == pytest.approx(1, abs=1e-3)
        assert not values[~mask].any()


def test_log_mel_does_not_hear_how_loud_a_clip_is_but_how_high() -> None:
    prepare = LogMelPreparer(8_000, 0.5, 16)
    loud, quiet = noise(3_000, 0), noise(3_000, 0) * 0.25
    torch.testing.assert_close(
        prepare(sounds([loud]))["log_mel"], prepare(sounds([quiet]))["log_mel"], atol=1e-3, rtol=1e-3
    )
    low, high = (
        prepare(sounds([sine(pitch, 0.4, 8_000)]))["log_mel"][0].mean(dim=0).argmax() for pitch in (250, 2_000)
    )
    assert high > low


def test_preparers_describe_themselves_as_plain_data() -> None:
    for prepare in (
        VisionPreparer(6, (0.5,), (0.5,), 1),
        TextPreparer(tiny.word_tokenizer(), 7),
        WaveformPreparer(8_000, 1.0),
        LogMelPreparer(8_000, 1.0, 16),
    ):
        described = prepare.to_json()
        assert described and all(isinstance(value, (int, float, str, tuple)) for value in described.values())
