"""XLA's flags for tests."""

from importlib import metadata


def flags(level: int) -> str:
    """Returns `XLA_FLAGS` that compile quickly.

    Args:
        level: int, of optimization. 0 for programs that run a few times.
            float64 products take minutes at 0, so they need 1.
    """
    found = [
        f"--xla_backend_optimization_level={level}",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    # Removed in JAX 0.11; unknown flags abort the process.
    try:
        major, minor, *_ = metadata.version("jaxlib").split(".")
        if (int(major), int(minor)) < (0, 11):
            found.append("--xla_cpu_use_fusion_emitters=false")
    except metadata.PackageNotFoundError:
        pass
    if level == 0:
        found.append("--xla_llvm_disable_expensive_passes=true")
    return " ".join(found)
