#!/bin/sh
# Remake synthforge/assets/digits: the sets, the generator fitted on all 800, nested ones fitted on the first few of each class, and
# encoder and judge.
# Bytes are equal on the same hardware and software; see synthforge/assets/README.md for what they were made on.
set -eu
out=synthforge/assets/digits
rm -rf "$out"
python scripts/import_digits.py "$out"
synthforge fit builtin:digits/reference --out "$out/generator" --set store=float16 --set threads=2
for n in 5 10 20 50; do
  synthforge fit builtin:digits/reference --out "$out/generator-$n-per-class" \
    --set per_class=$n --set guide_at=null --set store=float16 --set threads=2
done
python scripts/fit_encoder.py judge "$out/judge"
python scripts/fit_encoder.py clip "$out/encoder"
