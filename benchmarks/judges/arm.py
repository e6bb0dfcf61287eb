"""A 64-bit Arm Python with LiteRT, emulated by QEMU: made of Debian's packages, in one folder, nothing installed.

apt-get and dpkg fetch and unpack Debian 13's packages under a configuration of their own, so neither another
architecture nor root is needed; of `qemu-user` one program is kept, which needs no library. XNNPACK asks the processor
for its instruction sets, which QEMU's `-cpu` answers, and reads its kind in /proc/cpuinfo, so every core has one.
"""

import os
import pathlib
import shutil
import textwrap

from benchmarks.judges.commands import INSTALL, PIP, CannotBeMadeError, call

RELEASE = "trixie"
PYTHON = "python3.13"
QEMU = "qemu-user"  # at least 10: what 7.2 computes with SME is wrong
PACKAGES = (
    *(f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib"),
    *("libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libssl3t64", "libstdc++6", "zlib1g"),
)
PLATFORMS = ("manylinux_2_35", "manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_V9 = f"{_V8_2} i8mm bf16 sve sve2"
# Each runs other kernels of XNNPACK: what QEMU calls it, its number and its features in /proc/cpuinfo.
CORES = {
    "a53": ("cortex-a53", "0xd03", _V8_0),  # multiply and add
    "a76": ("cortex-a76", "0xd0b", _V8_2),  # dot products
    "x2": ("max,sme=off", "0xd48", _V9),  # matrix products
    "sme": ("max", "0xd48", f"{_V9} sme"),  # outer products
}
CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 0

"""
LAUNCHER = f"""\
#!/bin/sh
# Python on the core that $CORE names.
here=$(cd "$(dirname "$0")/.." && pwd)
core=$here/cores/${{CORE:-a76}}
PYTHONHOME=/usr PYTHONPATH=$here/site PYTHONPYCACHEPREFIX=$here/bytecode
export PYTHONHOME PYTHONPATH PYTHONPYCACHEPREFIX
unset PYTHONDONTWRITEBYTECODE  # compiling is what takes longest here
exec "$here/qemu-aarch64" -cpu "$(cat "$core/qemu-cpu")" -L "$core" "$here/root/usr/bin/{PYTHON}" "$@"
"""


def install(folder: pathlib.Path, requirements: pathlib.Path) -> None:
    """Makes the environment: about 100 MB fetched, 170 MB kept; `bin/python` starts it, on the core in $CORE.

    Args:
      folder: an empty folder.
      requirements: pinned packages, all there are.

    Raises:
      CannotBeMadeError: if the machine cannot fetch, unpack or run the packages.
    """
    fetched = folder / "fetched"
    _fetch(fetched)
    for package in fetched.glob("*_arm64.deb"):
        call(["dpkg", "-x", package, folder / "root"])
    (emulator,) = fetched.glob(f"{QEMU}_*.deb")
    call(["dpkg", "-x", emulator, fetched / QEMU])
    shutil.move(fetched / QEMU / "usr/bin/qemu-aarch64", folder)
    shutil.rmtree(fetched)
    platforms = [f"--platform={platform}_aarch64" for platform in PLATFORMS]
    target = ["--only-binary=:all:", f"--python-version={PYTHON.removeprefix('python')}", f"--target={folder / 'site'}"]
    call([*PIP, *INSTALL, *platforms, *target, "--requirement", requirements])
    for name in CORES:
        _describe_core(folder / "cores" / name, *CORES[name])
    launcher = folder / "bin/python"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def _fetch(folder: pathlib.Path) -> None:
    """Debian's packages as files in a folder that is made."""
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise CannotBeMadeError(
                f"The emulated Arm is made of Debian's packages: `apt-get` and `dpkg` are required. Received: no "
                f"`{program}` on the PATH. Run it on Debian, or in a container of Debian"
            )
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    mirror = os.environ.get("DEBIAN_MIRROR") or _mirror()
    (folder / "sources.list").write_text(f"deb [arch=amd64,arm64 signed-by={KEYRING}] {mirror} {RELEASE} main\n")
    configuration = folder / "apt.conf"
    configuration.write_text(
        textwrap.dedent(f"""\
            APT::Architectures {{ "amd64"; "arm64"; }};
            APT::Sandbox::User "";
            Acquire::Languages "none";
            Dir::Etc::sourcelist "{folder}/sources.list";
            Dir::Etc::sourceparts "/dev/null";
            Dir::State::lists "{folder}/lists";
            Dir::Cache "{folder}/cache";
        """)
    )
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    wanted = [f"{QEMU}:amd64", *(f"{package}:arm64" for package in PACKAGES)]
    for command in (["update", "--error-on=any"], ["download", *wanted]):
        call(["apt-get", "--quiet=2", *command], cwd=folder, env=environment)


def _mirror() -> str:
    """The address that this machine has Debian's packages from."""
    addresses = call(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"]).split()
    mirrors = [address for address in addresses if address.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise CannotBeMadeError(
            "The emulated Arm is made of Debian's packages: a mirror of Debian is required. Received: apt-get's "
            f"sources {sorted(set(addresses))}, none of which ends in /debian. Name one: make judges DEBIAN_MIRROR=URL"
        )
    return mirrors[0]


def _describe_core(folder: pathlib.Path, cpu: str, part: str, features: str) -> None:
    """What a program on this core sees as the root of the file system; what is not here is the machine's own."""
    (folder / "proc").mkdir(parents=True)
    for name in ("lib", "etc", "usr"):
        (folder / name).symlink_to(pathlib.Path("../../root") / ("usr/lib" if name == "lib" else name))
    (folder / "qemu-cpu").write_text(cpu)
    described = (CPUINFO.format(number=number, part=part, features=features) for number in range(2))
    (folder / "proc/cpuinfo").write_text("".join(described))
