"""Which instructions this processor has, and which ones a compiled program may ask for, under LLVM's names."""

import re
from collections.abc import Mapping

from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[import-not-found,unused-ignore]

# Under the same name in numpy, in capitals.
_IN_CAPITALS = (
    "avx avx2 avx512bf16 avx512bitalg avx512bw avx512cd avx512dq avx512f avx512fp16 avx512ifma avx512vbmi avx512vbmi2"
    " avx512vl avx512vnni avx512vpopcntdq bmi bmi2 cx16 f16c fma4 gfni lzcnt movbe popcnt sse3 ssse3 xop"
)
# LLVM's name -> numpy's. numpy asks CPUID itself, and the operating system whether it keeps the wide registers; under
# an emulator /proc/cpuinfo would tell of another processor.
_NUMPY_NAMES = {name: name.upper() for name in _IN_CAPITALS.split()} | {
    "fma": "FMA3", "sahf": "LAHF", "sse4.1": "SSE41", "sse4.2": "SSE42",
}  # fmt: skip

# What every x86-64 has, and what says how to schedule, not what to use.
_ALWAYS = frozenset({"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"})
_TUNING = re.compile(r"prefer-|tuning-|fast-|slow-|false-deps-")

# A compiler never uses these by itself, only where the source names the instruction, and XLA's programs name none:
# cryptography, tiles, random numbers, the management of caches, of pages, of saved registers.
_ONLY_IF_NAMED = (
    "adx aes amx-avx512 amx-bf16 amx-complex amx-fp16 amx-fp8 amx-int8 amx-movrs amx-tf32 amx-tile avx512vp2intersect"
    " cldemote clflushopt clwb clzero crc32 enqcmd fsgsbase hreset invpcid kl movdir64b movdiri mwaitx pclmul pconfig"
    " pku prefetchi prfchw ptwrite rdpid rdpru rdrnd rdseed rtm serialize sgx sha sha512 shstk sm3 sm4 tsxldtrk uintr"
    " usermsr vaes vpclmulqdq waitpkg wbnoinvd widekl xsave xsavec xsaveopt xsaves"
)
_NEVER_USED = frozenset(_ONLY_IF_NAMED.split())


def _bytes_where(mask: int, *values: int) -> bytes:
    """Return a regular expression's class of the bytes that have one of ``values`` under ``mask``."""
    return b"[" + b"".join(b"\\x%02x" % byte for byte in range(256) if byte & mask in values) + b"]"


# These a compiler may use for shifts, shuffles and sums of bytes, and rarely does. None of their instructions lacks
# these bytes, so a program without them needs no such feature; bytes that only look so make it choosier, not wrong.
# From Intel's and AMD's manuals: "VEX.66.0F3A.W1 CE" is c4, a byte that ends in the map 3, one that ends in 01, ce.
_ENCODINGS = {
    "gfni": re.compile(
        rb"\x66[\x40-\x4f]?\x0f(?:\x38\xcf|\x3a[\xce\xcf])"
        + rb"|\xc4%s%s[\xce\xcf]" % (_bytes_where(0x1F, 2, 3), _bytes_where(0x03, 1))
        + rb"|\x62%s%s[\x00-\xff][\xce\xcf]" % (_bytes_where(0x07, 2, 3), _bytes_where(0x03, 1))
    ),
    "sse4a": re.compile(rb"[\x66\xf2][\x40-\x4f]?\x0f[\x78\x79]|[\xf2\xf3][\x40-\x4f]?\x0f\x2b"),
    "avxvnni": re.compile(rb"\xc4%s%s[\x50-\x53]" % (_bytes_where(0x1F, 2), _bytes_where(0x83, 1))),
}

# As XLA writes it into what it compiles: every feature, with + or -.
_FEATURE_LIST = re.compile(rb"\+64bit(?:,[-+][a-z0-9._-]+)+")


def cpu_features(found: Mapping[str, bool] = __cpu_features__) -> frozenset[str]:
    """Return what this processor has, of what `required_features` may name."""
    return frozenset(name for name, numpy_name in _NUMPY_NAMES.items() if found.get(numpy_name)) | _ALWAYS


def required_features(executable: bytes) -> frozenset[str]:
    """Return what a processor must have to run ``executable``, a program that XLA has compiled for x86-64.

    XLA lists what its compiler was allowed to use: everything that the compiling machine has, below a limit on the
    width of its vectors. Some of it no program of ours can contain; of the rest all is required that may be in there.
    """
    lists = set(_FEATURE_LIST.findall(executable))
    if not lists:
        raise ValueError("the executable does not say which processor it is for")
    allowed = {entry[1:] for found in lists for entry in found.decode().split(",") if entry[0] == "+"}
    return frozenset(
        name
        for name in allowed - _ALWAYS - _NEVER_USED
        if not _TUNING.match(name) and (name not in _ENCODINGS or _ENCODINGS[name].search(executable))
    )
