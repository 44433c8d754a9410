"""Four sibling folders install as one package, with compiled kernels.

The metadata is in pyproject.toml; this file holds what setuptools cannot say there.
"""

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

SIBLINGS = ("datasets", "protocols", "widerface_eval")

package_dir = {"evalkit": "evalkit"}
packages = ["evalkit", *(f"evalkit.{name}" for name in find_packages("evalkit"))]
for sibling in SIBLINGS:
    package_dir[f"evalkit.{sibling}"] = sibling
    packages += [f"evalkit.{sibling}", *(f"evalkit.{sibling}.{n}" for n in find_packages(sibling))]
package_dir["evalkit.configs"] = "configs"
packages.append("evalkit.configs")


def kernel(name: str, source: str) -> Extension:
    return Extension(
        f"evalkit.{name}",
        [source],
        include_dirs=[np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=["-O3"],
    )


setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "evalkit": [
            "py.typed",
            "backends/onnxruntime/*.onnx",
            "heads/*.pyi",
            "report/page/*.html",
            "report/page/*.css",
            "report/page/*.js",
            "report/page/*.yaml",
        ],
        "evalkit.configs": ["*/*.yaml"],
        "evalkit.datasets.sample": ["*.onnx", "*.pt", "data/**/*"],
        "evalkit.protocols": ["*.pyi"],
        "evalkit.widerface_eval": ["*.pyi"],
    },
    ext_modules=cythonize(
        [
            kernel("widerface_eval._matching", "widerface_eval/_matching.pyx"),
            kernel("heads._nms", "evalkit/heads/_nms.pyx"),
        ],
        language_level=3,
    ),
    zip_safe=False,
)
