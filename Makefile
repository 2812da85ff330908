# The commands to know; `make help` lists them. What a command needs and the machine lacks is
# installed or downloaded first, with a word about it (tools/need.sh, tools/get-*.sh).
.DELETE_ON_ERROR:
.PHONY: all test-needs fmt-check iso run test test-all boot-test host-test figures loom fuzz fmt clippy clean help FORCE
SHELL := /bin/bash
BED ?= qemu
KERNEL ?= 6.1-cloud
TESTS ?=

all: build/euxen  ## build the hypervisor, build/euxen

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

# Which Rust, and how to call it. Rebuilt by make itself before anything else.
build/toolchain.mk: rust-toolchain.toml tools/toolchain.sh
	@mkdir -p build && tools/toolchain.sh $@
ifeq ($(filter help clean,$(MAKECMDGOALS)),)
include build/toolchain.mk
endif
export RUSTC_BOOTSTRAP := 1
export CARGO
BARE := -Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem \
	-Zjson-target-spec --target x86_64-hv.json
HOST_CRATES := -p abi -p model -p sync
CACHE := $(or $(EUXEN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/euxen)
FUZZ = $(CACHE)/cargo-fuzz/bin/cargo-fuzz fuzz run --fuzz-dir tests/fuzz -s none

build/euxen: FORCE
	@$(CARGO) build --release $(BARE)
	@cmp -s target/x86_64-hv/release/euxen $@ || cp target/x86_64-hv/release/euxen $@

# The same with a count of how long a CPU goes without a look at what is pending (src/kernel/stretch.rs).
build/euxen-stretch: FORCE
	@$(CARGO) build --release --features stretch $(BARE)
	@cp target/x86_64-hv/release/euxen $@

# The same with counts of the locks of each place (src/sync/counts.rs).
build/euxen-locks: FORCE
	@$(CARGO) build --release --features locks $(BARE)
	@cp target/x86_64-hv/release/euxen $@

# A static program for Linux guests, built as our own guest is.
build/stress: FORCE
	@cd tests/stress && $(CARGO) build --quiet --release
	@cmp -s tests/stress/target/x86_64-stress/release/stress $@ || cp tests/stress/target/x86_64-stress/release/stress $@

build/initrd: tests/boot/init tools/initramfs.sh build/stress
	@tools/initramfs.sh $@ tests/boot/init build/stress

build/beds/vmlinuz-%:
	@tools/get-kernels.sh $*

iso: build/euxen.iso  ## make build/euxen.iso: GRUB, the hypervisor and a Debian guest (KERNEL=6.1-cloud)

build/euxen.iso: build/euxen build/initrd build/beds/vmlinuz-$(KERNEL) boot/grub.cfg boot/debian.cfg tools/iso.sh
	@tools/need.sh iso
	@tools/iso.sh $@ boot/grub.cfg build/euxen boot/debian.cfg vmlinuz=build/beds/vmlinuz-$(KERNEL) initrd=build/initrd
	@echo "-- made $@"

# The emulators. Bochs is built from source once, into the user's cache folder.
.PHONY: bed-qemu bed-bochs
bed-qemu:
	@tools/get-qemu.sh
bed-bochs:
	@tools/get-bochs.sh

RUNNER = $(CARGO) run --quiet --release --manifest-path tests/boot/Cargo.toml --

run: build/euxen.iso bed-$(firstword $(subst -, ,$(BED)))  ## boot the ISO, the guest's console here (BED=qemu, bochs-vmx or bochs-svm)
	@$(RUNNER) run $(BED) build/euxen.iso

# The project's own guest; its folder has a target and cargo settings of its own.
build/guest: FORCE
	@cd tests/guests && $(CARGO) build --quiet --release
	@cmp -s tests/guests/target/x86_64-guest/release/guest $@ || cp tests/guests/target/x86_64-guest/release/guest $@

KERNELS := 6.1 6.1-cloud 6.12 6.12-cloud
test-needs: build/euxen build/initrd build/guest bed-qemu bed-bochs $(KERNELS:%=build/beds/vmlinuz-%)
	@tools/need.sh iso uefi test

test: test-needs  ## all tests: on the host, then boots in the emulators (TESTS=words picks by name)
	@$(RUNNER) test $(TESTS)

test-all: test-needs  ## the whole matrix of kernels, beds and domains; prints its table (hours)
	@$(RUNNER) test-all $(TESTS)

host-test:  ## only the tests that run on the host
	@tools/need.sh test
	@$(CARGO) test --quiet $(HOST_CRATES)

# The interleavings of a few threads. Built apart, since all atomics are others.
loom:  ## explore the interleavings of CPUs on locks and frame records, by loom
	@tools/need.sh test
	@RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --quiet --release -p sync -p model --lib loom

# Without an address sanitizer: the code has no unsafe, and it is faster so.
FUZZ_SECONDS ?= 60
fuzz:  ## run the fuzzer of PV page tables for FUZZ_SECONDS (60)
	@tools/need.sh fuzz && tools/get-cargo-fuzz.sh
	@mkdir -p tests/fuzz/corpus/mmu && $(FUZZ) mmu -- -max_len=400 -len_control=0 -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1

boot-test: test-needs  ## only the boots
	@$(RUNNER) boot-test $(TESTS)

.PHONY: bed-xen xen-test bench scaling writes
bed-xen:
	@tools/get-xen.sh

xen-test: build/guest bed-xen bed-qemu bed-bochs  ## the guest's own tests on Debian's Xen, which they must agree with
	@tools/need.sh iso
	@$(RUNNER) xen-test $(TESTS)

bench: build/euxen build/guest bed-xen bed-bochs  ## what each operation costs, beside Debian's Xen; writes docs/bench
	@tools/need.sh iso
	@$(RUNNER) bench $(TESTS)

# The two images are made one after the other, by one cargo.
scaling: build/guest bed-bochs  ## what operations cost when 1, 2, 4 and 64 domains do the same; writes docs/bench/scaling.csv
	@$(MAKE) --no-print-directory build/euxen-locks && $(MAKE) --no-print-directory build/euxen
	@tools/need.sh iso
	@$(RUNNER) scaling $(TESTS)

writes: build/euxen build/guest bed-qemu  ## which words two CPUs both write while each does the same; writes docs/bench/writes.csv
	@tools/need.sh iso
	@cd tests/writes && $(CARGO) build --quiet --release
	@$(RUNNER) writes

figures: build/euxen  ## lines of Rust and of unsafe Rust for each crate, size of the image
	@$(RUNNER) figures

fmt:  ## format the sources
	@$(CARGO_FMT)
	@for each in boot guests stress fuzz writes; do $(CARGO_FMT) --manifest-path tests/$$each/Cargo.toml; done

clippy:  ## lint them, with warnings denied
	@$(CARGO_CLIPPY) --quiet $(HOST_CRATES) --all-targets -- -D warnings
	@$(CARGO_CLIPPY) --quiet $(BARE) -p machine -p kernel -p euxen -- -D warnings
	@$(CARGO_CLIPPY) --quiet --manifest-path tests/boot/Cargo.toml --all-targets -- -D warnings
	@cd tests/guests && $(CARGO_CLIPPY) --quiet -- -D warnings
	@cd tests/stress && $(CARGO_CLIPPY) --quiet -- -D warnings
	@$(CARGO_CLIPPY) --quiet --manifest-path tests/writes/Cargo.toml -- -D warnings

fmt-check:
	@$(CARGO_FMT) --check
	@set -e; for each in boot guests stress fuzz writes; do $(CARGO_FMT) --check --manifest-path tests/$$each/Cargo.toml; done

clean:  ## remove what was built (the cache folder of downloads stays)
	rm -rf build target tests/boot/target tests/guests/target tests/stress/target tests/fuzz/target tests/writes/target

FORCE:
