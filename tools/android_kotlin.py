"""Compiles the Kotlin class of the edge bundle against LiteRT's own Java classes (needs Java and Maven).

LiteRT for Android is on Google's Maven repository; its classes of the same names and signatures are on Maven Central as
org.tensorflow:tensorflow-lite. Android's own classes are stood in for by the few signatures that the Kotlin file calls.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from bike_pipeline.edge import documents

FOLDER = Path(".android-kotlin")
KOTLIN = "2.3.21"
COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
# Group, artifact, version, type.
DEPENDENCIES = (
    ("org.jetbrains.kotlin", "kotlin-compiler-embeddable", KOTLIN, "jar"),
    ("org.json", "json", "20240303", "jar"),
    ("org.tensorflow", "tensorflow-lite", "2.16.1", "aar"),
    ("org.tensorflow", "tensorflow-lite-api", "2.16.1", "aar"),
)
# Of API level 19 and later, as the Android reference has them.
STUBS = {
    "android/content/Context.java": "package android.content; public abstract class Context {"
    " public abstract android.content.res.AssetManager getAssets(); }",
    "android/content/res/AssetManager.java": "package android.content.res; public abstract class AssetManager {"
    " public abstract java.io.InputStream open(String name) throws java.io.IOException;"
    " public abstract AssetFileDescriptor openFd(String name) throws java.io.IOException; }",
    "android/content/res/AssetFileDescriptor.java": "package android.content.res;"
    " public abstract class AssetFileDescriptor implements java.io.Closeable {"
    " public abstract java.io.FileDescriptor getFileDescriptor();"
    " public abstract long getStartOffset(); public abstract long getDeclaredLength(); }",
}
# An archive for Android names what it needs as jar files, which are not there.
NOTHING_MORE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>bike</groupId><artifactId>android-kotlin</artifactId><version>1</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""


def main() -> None:
    """Fetch what it takes, write the Kotlin class and compile it; a warning is an error."""
    for program, fix in (("mvn", "maven"), ("javac", "default-jdk-headless")):
        if shutil.which(program) is None:
            sys.exit(f"error: {program} is not installed (Debian, Ubuntu: apt install {fix})")
    FOLDER.mkdir(exist_ok=True)
    dependencies = "\n".join(
        f"    <dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version><type>{kind}</type>{NOTHING_MORE if kind == 'aar' else ''}</dependency>"
        for group, name, version, kind in DEPENDENCIES
    )
    (FOLDER / "pom.xml").write_text(POM.format(dependencies=dependencies), encoding="utf-8")
    libraries = FOLDER / "libraries"
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={libraries.absolute()}"]
    if subprocess.run(["mvn", "-q", "-B", "-f", str(FOLDER / "pom.xml"), *copy], check=False).returncode:
        sys.exit("error: Maven could not fetch the compiler and LiteRT's classes; see above")
    for archive in libraries.glob("*.aar"):
        with zipfile.ZipFile(archive) as content:
            archive.with_suffix(".jar").write_bytes(content.read("classes.jar"))
    for name, text in STUBS.items():
        path = FOLDER / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    stubs = FOLDER / "stub-classes"
    sources = [str(FOLDER / "stubs" / name) for name in STUBS]
    subprocess.run(["javac", "-d", str(stubs), *sources], check=True)
    source = FOLDER / Path(documents.SOURCE).name
    source.write_text(documents.kotlin(documents.feature_contract(), "tflite_float32", 1e-4), encoding="utf-8")
    jars = ":".join(str(path) for path in sorted(libraries.glob("*.jar")))
    options = ["-no-stdlib", "-no-reflect", "-Werror", "-cp", f"{jars}:{stubs}", "-d", str(FOLDER / "classes")]
    done = subprocess.run(["java", "-cp", jars, COMPILER, *options, str(source)], check=False)
    if done.returncode:
        sys.exit("error: the Kotlin class of the edge bundle does not compile")
    print(f"the Kotlin class of the edge bundle compiles (Kotlin {KOTLIN}, LiteRT's Java classes 2.16.1)")


if __name__ == "__main__":
    main()
