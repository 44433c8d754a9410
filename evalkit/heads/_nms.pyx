# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
# distutils: extra_compile_args=-ffp-contract=off
"""Greedy non-maximum suppression; `evalkit.heads.nms` validates, sorts and calls it.

A fused multiply-add would round an overlap of exactly the threshold differently on other
processors, hence the compiler's option.
"""

from libc.stdint cimport int64_t


cdef inline double least(double a, double b) noexcept nogil:
    return a if a < b else b


cdef inline double most(double a, double b) noexcept nogil:
    return a if a > b else b


cdef Py_ssize_t suppress(const double[:, ::1] boxes, double threshold, double extra,
                         double[:, ::1] chosen, int64_t[::1] kept) noexcept nogil:
    cdef Py_ssize_t row, other, count = 0
    cdef double width, height, shared, area
    cdef const double* box
    cdef double* rival
    for row in range(boxes.shape[0]):
        if count == kept.shape[0]:
            break
        box = &boxes[row, 0]
        area = (box[2] - box[0] + extra) * (box[3] - box[1] + extra)
        for other in range(count):
            rival = &chosen[other, 0]
            width = least(box[2], rival[2]) - most(box[0], rival[0]) + extra
            if width <= 0.0:
                continue
            height = least(box[3], rival[3]) - most(box[1], rival[1]) + extra
            if height <= 0.0:
                continue
            shared = width * height
            if shared / (area + rival[4] - shared) > threshold:
                break
        else:
            rival = &chosen[count, 0]
            for other in range(4):
                rival[other] = box[other]
            rival[4] = area
            kept[count] = row
            count += 1
    return count


def greedy(const double[:, ::1] boxes, double threshold, double extra,
           double[:, ::1] chosen, int64_t[::1] kept):
    """Write the rows that stay into `kept` and return their number.

    `boxes` are x1 y1 x2 y2 by descending score; `extra` is added to widths and heights;
    `chosen`, with five columns and as many rows as `kept`, is scratch.
    """
    cdef Py_ssize_t count
    with nogil:
        count = suppress(boxes, threshold, extra, chosen, kept)
    return count
