# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
# distutils: extra_compile_args=-ffp-contract=off
"""Box overlap and matching of images; the reference is `_reference.py`.

Nothing is validated here: `evalkit.widerface_eval.matching` does that, and calls `match_range`
from several threads for disjoint ranges of images. A fused multiply-add would round an overlap
of exactly the threshold differently on other processors, hence the compiler's option.
"""

from libc.math cimport round
from libc.stdint cimport int8_t, int64_t, uint8_t

cdef double INT32_MAX = 2147483647.0
cdef double INT32_MIN = -2147483648.0


cdef inline double least(double a, double b) noexcept nogil:
    # libm's fmin and fmax also order NaN, which costs a call and cannot occur here.
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef inline double as_int32(double value) noexcept nogil:
    """MATLAB's int32(value): to nearest, halves away from zero, saturating."""
    return least(most(round(value), INT32_MIN), INT32_MAX)


cdef inline double overlap_double(const double* box, double area, const double* face,
                                  double face_area) noexcept nogil:
    cdef double width = least(box[2], face[2]) - most(box[0], face[0]) + 1.0
    if width <= 0.0:
        return 0.0
    cdef double height = least(box[3], face[3]) - most(box[1], face[1]) + 1.0
    if height <= 0.0:
        return 0.0
    cdef double shared = width * height
    return shared / (area + face_area - shared)


cdef inline double overlap_int32(const double* box, double area,
                                 const double* face) noexcept nogil:
    cdef double width = as_int32(as_int32(least(as_int32(box[2]), face[2])
                                          - most(as_int32(box[0]), face[0])) + 1.0)
    if width <= 0.0:
        return 0.0
    cdef double height = as_int32(as_int32(least(as_int32(box[3]), face[3])
                                           - most(as_int32(box[1]), face[1])) + 1.0)
    if height <= 0.0:
        return 0.0
    cdef double face_area = as_int32(
        as_int32(as_int32(face[2] - face[0]) + 1.0) * as_int32(as_int32(face[3] - face[1]) + 1.0))
    cdef double shared = as_int32(width * height)
    cdef double union_ = as_int32(as_int32(face_area + area) - shared)
    if union_ == 0.0:
        return INT32_MAX
    return as_int32(shared / union_)


cdef void match_image(const double[:, ::1] boxes, Py_ssize_t start, Py_ssize_t stop,
                      const double[:, ::1] faces, Py_ssize_t face_start, Py_ssize_t face_stop,
                      const uint8_t[:, ::1] kept, double iou, bint int32, int64_t[::1] best,
                      double[::1] overlap, int8_t[:, ::1] outcome,
                      uint8_t[:, ::1] recalled) noexcept nogil:
    cdef Py_ssize_t row, face, setting, highest
    cdef double value, top, area
    cdef const double* box
    for row in range(start, stop):
        box = &boxes[row, 0]
        area = (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)
        top = -1.0
        highest = -1
        for face in range(face_start, face_stop):
            if int32:
                value = overlap_int32(box, area, &faces[face, 0])
            else:
                value = overlap_double(box, area, &faces[face, 0], faces[face, 4])
            if value > top:
                top = value
                highest = face
        overlap[row] = most(top, 0.0)
        best[row] = highest if top >= iou else -1
        for setting in range(kept.shape[0]):
            if highest < 0:
                outcome[setting, row] = -1
            elif top < iou:
                outcome[setting, row] = 0
            elif not kept[setting, highest]:
                outcome[setting, row] = -1
            elif recalled[setting, highest]:
                outcome[setting, row] = 0
            else:
                recalled[setting, highest] = 1
                outcome[setting, row] = 1


def match_range(const double[:, ::1] boxes, const int64_t[::1] offsets,
                const double[:, ::1] faces, const int64_t[::1] face_offsets,
                const uint8_t[:, ::1] kept, double iou, bint int32,
                Py_ssize_t first, Py_ssize_t last, int64_t[::1] best, double[::1] overlap,
                int8_t[:, ::1] outcome, uint8_t[:, ::1] recalled):
    """Match the images ``first`` to ``last - 1``; boxes and faces are corners x1 y1 x2 y2."""
    cdef Py_ssize_t image
    with nogil:
        for image in range(first, last):
            match_image(boxes, offsets[image], offsets[image + 1], faces, face_offsets[image],
                        face_offsets[image + 1], kept, iou, int32, best, overlap, outcome,
                        recalled)
