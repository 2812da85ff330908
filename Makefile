# Filled in by the set-up step; this much builds the image.
export PATH := /usr/bin:/bin:/usr/sbin:/sbin:$(PATH)
export RUSTC_BOOTSTRAP := 1
CARGO_HV = /usr/bin/cargo build --release -Zbuild-std=core,alloc,compiler_builtins \
	-Zbuild-std-features=compiler-builtins-mem -Zjson-target-spec --target x86_64-hv.json
build/euxen: FORCE
	mkdir -p build && $(CARGO_HV) && cp target/x86_64-hv/release/euxen $@
FORCE:
