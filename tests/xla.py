"""How tests compile with XLA."""

from importlib import metadata


def flags(level: int) -> str:
    """Returns `XLA_FLAGS` that compile quickly.

    Args:
        level: int, of optimization: 0 for what runs a few times. Products of
            float64 take minutes without any, and need 1.
    """
    found = [
        f"--xla_backend_optimization_level={level}",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    # It is gone from JAX 0.11, where an unknown flag ends the process.
    try:
        major, minor, *_ = metadata.version("jaxlib").split(".")
        if (int(major), int(minor)) < (0, 11):
            found.append("--xla_cpu_use_fusion_emitters=false")
    except metadata.PackageNotFoundError:
        pass
    if level == 0:
        found.append("--xla_llvm_disable_expensive_passes=true")
    return " ".join(found)
