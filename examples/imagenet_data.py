"""ImageNet as tensorflow-datasets has it, in batches: random crops to train on, centre crops to test on.

python -m examples.imagenet_data --data_dir=DIR        # how many images the pipeline makes in a second
"""

import time

import tensorflow as tf
from absl import app, flags

TRAINING_IMAGES, TEST_IMAGES, CLASSES = 1_281_167, 50_000, 1000

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps imagenet2012.")
flags.DEFINE_integer("image_size", 224, "Height and width of the images.", lower_bound=32)
flags.DEFINE_integer("batch_size", 256, "Images in a step, on all devices together.", lower_bound=1)


def training_batches(data_dir: str | None, size: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Batches without end: a crop of 8 to 100 % of each image, resized to `size`, mirrored at random; 0 .. 255."""
    examples = _examples("train", data_dir, shuffle_files=True).repeat().shuffle(16_384, seed=seed)
    return _cropped_at_random(examples, size, batch_size)


def _cropped_at_random(examples: tf.data.Dataset, size: int, batch_size: int) -> tf.data.Dataset:
    dataset = examples.map(
        lambda example: (_random_crop(example["image"], size), example["label"]),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def test_batches(data_dir: str | None, size: int, batch_size: int) -> tf.data.Dataset:
    """The 50,000 test images once: the centre, 7/8 of the shorter side, resized to `size`; 0 .. 255."""
    dataset = _examples("validation", data_dir, shuffle_files=False).map(
        lambda example: (_centre_crop(example["image"], size), example["label"]), num_parallel_calls=tf.data.AUTOTUNE
    )
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _examples(split: str, data_dir: str | None, shuffle_files: bool) -> tf.data.Dataset:
    import tensorflow_datasets as tfds

    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    skip = {"image": tfds.decode.SkipDecoding()}  # only what is cropped is decoded
    return builder.as_dataset(split=split, shuffle_files=shuffle_files, decoders=skip)  # pyright: ignore


def _random_crop(encoded, size: int):
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(encoded),
        tf.zeros((0, 0, 4)),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.image.random_flip_left_right(_cropped(encoded, begin[0], begin[1], extent[0], extent[1], size))


def _centre_crop(encoded, size: int):
    shape = tf.image.extract_jpeg_shape(encoded)
    side = tf.cast(tf.cast(tf.minimum(shape[0], shape[1]), tf.float32) * 7 / 8, tf.int32)
    return _cropped(encoded, (shape[0] - side) // 2, (shape[1] - side) // 2, side, side, size)


def _cropped(encoded, top, left, height, width, size: int):
    image = tf.image.decode_and_crop_jpeg(encoded, tf.stack([top, left, height, width]), channels=3)
    return tf.clip_by_value(tf.image.resize(image, (size, size), "bicubic"), 0.0, 255.0)


def images_per_second(batches: tf.data.Dataset, steps: int, warm_up: int = 2) -> float:
    """How many images a pipeline makes, measured over some batches after the first ones."""
    count, started = 0, 0.0
    for number, (images, _) in enumerate(batches.take(warm_up + steps)):
        if number == warm_up:
            started = time.perf_counter()
        if number >= warm_up:
            count += int(images.shape[0])
    return count / (time.perf_counter() - started)


def _made_up() -> tf.data.Dataset:
    """64 JPEG files over and over, of 500 x 375 pixels and some 110 kB, as ImageNet's are on average."""
    coarse = tf.random.stateless_uniform((64, 47, 63, 3), (0, 0), 0.0, 255.0)
    noise = tf.random.stateless_normal((64, 375, 500, 3), (0, 1), 0.0, 12.0)
    images = tf.cast(tf.clip_by_value(tf.image.resize(coarse, (375, 500), "bicubic") + noise, 0.0, 255.0), tf.uint8)
    files = [tf.io.encode_jpeg(image, quality=90) for image in images]
    return tf.data.Dataset.from_tensor_slices({"image": files, "label": [0] * len(files)}).repeat()


def main(argv) -> None:
    """Prints how many images the training pipeline makes in a second."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if FLAGS.data_dir is not None:
        batches = training_batches(FLAGS.data_dir, FLAGS.image_size, FLAGS.batch_size, seed=0)
    else:
        batches = _cropped_at_random(_made_up(), FLAGS.image_size, FLAGS.batch_size)
    print(f"{images_per_second(batches, steps=20):.0f} images/s of {FLAGS.image_size} pixels")


if __name__ == "__main__":
    app.run(main)
