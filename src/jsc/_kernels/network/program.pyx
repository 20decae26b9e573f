"""The program of a compiled network: a list of instructions made from named fields, and its call.

Every `add` method takes a dict of the fields of one C++ struct, by name (a missing one is an error),
and gives the index of the new instruction. Addresses of constants (weights) and of the regions of a
call come from tensors that the caller keeps.
"""

from cython.parallel cimport parallel, threadid
from libc.stdint cimport int64_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from jsc._kernels.cpc.forward cimport CpcTask, band_float

include "network/fields.pxi"

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    static inline int jsc_team_size() { return omp_get_num_threads(); }
    #else
    static inline int jsc_team_size() { return 1; }
    #endif
    """
    int jsc_team_size() nogil

cdef extern from "network/team.h" namespace "jsc::network" nogil:
    cdef cppclass Instruction:
        int64_t rounds() const
    cdef cppclass Meeting:
        Meeting(int64_t threads) except +
    cdef cppclass Schedule:
        void new_stage() except +
        void add(const Instruction *instruction, int64_t round) except +
        size_t size() const
        int64_t scratch_bytes() const
        void walk(
            int isa, int64_t thread, int64_t threads, char **regions, char *scratch, Meeting &meeting
        ) const

cdef extern from "network/convolution.h" namespace "jsc::network" nogil:
    cdef cppclass Convolution(Instruction):
        Convolution(const ConvolutionFields &, int64_t lanes) except +

cdef extern from "network/pool.h" namespace "jsc::network" nogil:
    cdef cppclass Pool(Instruction):
        Pool(const PoolFields &) except +

cdef extern from "network/adaptive_pool.h" namespace "jsc::network" nogil:
    cdef cppclass AdaptivePool(Instruction):
        AdaptivePool(const AdaptivePoolFields &) except +

cdef extern from "network/elementwise.h" namespace "jsc::network" nogil:
    cdef cppclass Elementwise(Instruction):
        Elementwise(const ElementwiseFields &) except +

cdef extern from "network/linear.h" namespace "jsc::network" nogil:
    cdef cppclass Linear(Instruction):
        Linear(const LinearFields &) except +

cdef extern from "network/normalise.h" namespace "jsc::network" nogil:
    cdef cppclass Normalise(Instruction):
        Normalise(const NormaliseFields &) except +

cdef extern from "network/group_norm.h" namespace "jsc::network" nogil:
    cdef cppclass GroupNorm(Instruction):
        GroupNorm(const GroupNormFields &) except +

cdef extern from "network/copy.h" namespace "jsc::network" nogil:
    cdef cppclass Copy(Instruction):
        Copy(const CopyFields &) except +

cdef extern from "network/resize.h" namespace "jsc::network" nogil:
    cdef cppclass Resize(Instruction):
        Resize(const ResizeFields &) except +

cdef extern from "network/depthwise.h" namespace "jsc::network" nogil:
    cdef cppclass Depthwise(Instruction):
        Depthwise(const DepthwiseFields &) except +

cdef extern from "network/grouped.h" namespace "jsc::network" nogil:
    cdef cppclass Grouped(Instruction):
        Grouped(const GroupedFields &) except +

cdef extern from "network/sparse.h" namespace "jsc::network" nogil:
    cdef cppclass Sparse(Instruction):
        Sparse(
            const SparseFields &, void (*band)(int isa, int V, const CpcTask[float] *task) noexcept nogil
        ) except +

cdef extern from "network/tiles.h" namespace "jsc::network" nogil:
    cdef cppclass Tiles(Instruction):
        Tiles(const TilesFields &, int64_t lanes) except +

cdef extern from "network/direct_bf16.h" namespace "jsc::network" nogil:
    cdef cppclass DirectBf16(Instruction):
        DirectBf16(const DirectBf16Fields &, int64_t lanes) except +

cdef extern from "network/winograd.h" namespace "jsc::network" nogil:
    cdef cppclass Winograd(Instruction):
        Winograd(const WinogradFields &, int64_t lanes) except +


cdef class Program:
    """Instructions, which never change once they are added, and schedules over them."""

    cdef vector[Instruction *] instructions
    cdef readonly int isa
    cdef int64_t lanes

    def __cinit__(self, int isa):
        self.isa = isa
        self.lanes = (4, 8, 16)[isa]

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.instructions.size()):
            del self.instructions[i]

    cdef int add(self, Instruction *instruction) except -1:
        self.instructions.push_back(instruction)
        return <int>self.instructions.size() - 1

    cdef Instruction *at(self, size_t index) except NULL:
        return self.instructions.at(index)

    def rounds(self, size_t index):
        return self.at(index).rounds()

    def add_convolution(self, fields):
        cdef ConvolutionFields f = fields
        return self.add(new Convolution(f, self.lanes))

    def add_depthwise(self, fields):
        cdef DepthwiseFields f = fields
        return self.add(new Depthwise(f))

    def add_grouped(self, fields):
        cdef GroupedFields f = fields
        return self.add(new Grouped(f))

    def add_sparse(self, fields):
        cdef SparseFields f = fields
        return self.add(new Sparse(f, band_float))

    def add_tiles(self, fields):
        cdef TilesFields f = fields
        return self.add(new Tiles(f, self.lanes))

    def add_direct_bf16(self, fields):
        cdef DirectBf16Fields f = fields
        return self.add(new DirectBf16(f, self.lanes))

    def add_winograd(self, fields):
        cdef WinogradFields f = fields
        return self.add(new Winograd(f, self.lanes))

    def add_pool(self, fields):
        cdef PoolFields f = fields
        return self.add(new Pool(f))

    def add_adaptive_pool(self, fields):
        cdef AdaptivePoolFields f = fields
        return self.add(new AdaptivePool(f))

    def add_elementwise(self, fields):
        cdef ElementwiseFields f = fields
        return self.add(new Elementwise(f))

    def add_linear(self, fields):
        cdef LinearFields f = fields
        return self.add(new Linear(f))

    def add_normalise(self, fields):
        cdef NormaliseFields f = fields
        return self.add(new Normalise(f))

    def add_group_norm(self, fields):
        cdef GroupNormFields f = fields
        return self.add(new GroupNorm(f))

    def add_copy(self, fields):
        cdef CopyFields f = fields
        return self.add(new Copy(f))

    def add_resize(self, fields):
        cdef ResizeFields f = fields
        return self.add(new Resize(f))


cdef class Walk:
    """An order of instructions: `stages` is a list of lists of indices, those of one list independent
    of each other."""

    cdef Schedule schedule
    cdef Program program

    def __cinit__(self, Program program, stages):
        cdef int64_t round, rounds
        cdef Instruction *instruction
        self.program = program
        for stage in stages:
            rounds = max(program.rounds(index) for index in stage)
            for round in range(rounds):
                self.schedule.new_stage()
                for index in stage:
                    instruction = program.at(index)
                    if round < instruction.rounds():
                        self.schedule.add(instruction, round)

    @property
    def stages(self):
        """Stages, counting each round of an instruction as one."""
        return self.schedule.size()

    @property
    def scratch_bytes(self):
        """Scratch of one thread."""
        return self.schedule.scratch_bytes()

    def run(self, regions, size_t scratch, int num_threads):
        """Runs all stages; `regions` are addresses, `scratch` has scratch_bytes for each thread."""
        cdef vector[char *] at
        cdef size_t address
        at.reserve(len(regions))
        for address in regions:
            at.push_back(<char *>address)
        cdef unique_ptr[Meeting] meeting
        meeting.reset(new Meeting(num_threads))
        cdef int isa = self.program.isa
        with nogil:
            if num_threads == 1:
                self.schedule.walk(isa, 0, 1, at.data(), <char *>scratch, meeting.get()[0])
            else:
                with parallel(num_threads=num_threads):
                    self.schedule.walk(
                        isa, threadid(), jsc_team_size(), at.data(), <char *>scratch, meeting.get()[0]
                    )
