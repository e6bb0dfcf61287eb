"""The Android project names the asset and the class that there are; it is built elsewhere."""

import pathlib
from xml.etree import ElementTree

FOLDER = pathlib.Path("examples/android")
SOURCE = FOLDER / "app/src/main/kotlin/example/classify/MainActivity.kt"
ANDROID = "{http://schemas.android.com/apk/res/android}"


def test_the_manifest_starts_the_activity():
    (activity,) = ElementTree.parse(FOLDER / "app/src/main/AndroidManifest.xml").iter("activity")
    assert f"class {activity.get(f'{ANDROID}name').removeprefix('.')} :" in SOURCE.read_text()
    assert f'namespace = "{".".join(SOURCE.parent.parts[-2:])}"' in (FOLDER / "app/build.gradle.kts").read_text()


def test_the_asset_is_where_the_readme_puts_the_file():
    assert 'MODEL = "model.tflite"' in SOURCE.read_text()
    assert "app/src/main/assets/model.tflite" in (FOLDER / "README.md").read_text()
    assert (FOLDER / "app/src/main/assets").is_dir()


def test_the_file_is_not_compressed_in_the_package():
    assert 'noCompress += "tflite"' in (FOLDER / "app/build.gradle.kts").read_text()
