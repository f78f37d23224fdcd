#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds kernels_check.cpp with the kernels of every instruction set of the compiler's target, and runs it.
#   CXX  the compiler (c++); RUN  what runs the program, for instance an emulator; FLAGS  for all files (-O2)
# For Arm on any machine, with Debian's g++-aarch64-linux-gnu and qemu-user:
#   CXX=aarch64-linux-gnu-g++ RUN='qemu-aarch64 -L /usr/aarch64-linux-gnu' tests/native/kernels_check.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
native="$here/../../vision3d/sparse/native"
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
CXX=${CXX:-c++}
compile="$CXX -std=c++17 ${FLAGS:--O2} -pthread -I$native"
case $("$CXX" -dumpmachine) in
  x86_64*) levels="generic avx2 avx512" ;;
  aarch64* | arm64*) levels="generic neon" ;;
  *) levels="generic" ;;
esac
has=""
for level in $levels; do
  case $level in
    generic) flags=-DVISION3D_PLAIN ;;
    avx2) flags="-mavx2 -mfma" ;;
    avx512) flags="-mavx2 -mfma -mavx512f -mavx512vl -mavx512dq -mavx512bw -mprefer-vector-width=512" ;;
    *) flags="" ;;
  esac
  has="$has -DVISION3D_HAS_$level"
  $compile $flags -DVISION3D_ISA=$level \
    -c "$native/kernels/conv_kernels.cpp" -o "$build/$level.o" &
done
$compile $has "$native/dispatch.cpp" -c -o "$build/dispatch.o"
$compile "$native/threads.cpp" -c -o "$build/threads.o"
$compile "$here/kernels_check.cpp" -c -o "$build/check.o"
wait
# As in the library: plain code first, for the linker keeps the first of equal template functions.
objects="$build/check.o $build/dispatch.o $build/threads.o"
for level in $levels; do objects="$objects $build/$level.o"; done
$CXX ${FLAGS:--O2} -pthread ${LINK:-} $objects -o "$build/kernels_check"
${RUN:-} "$build/kernels_check"
