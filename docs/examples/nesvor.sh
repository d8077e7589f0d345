#!/usr/bin/env bash
# Stacks upright by their headers into NeSVoR, and what it reconstructs back onto a stack as it was scanned.
#
#   AGE=29.4 OUT=out bash nesvor.sh stack-1.nii.gz stack-2.nii.gz ...
#
# OPTIONS may hold more options of posepipe-tools align (OPTIONS="--atlas CRL"). NESVOR are those of nesvor reconstruct; its own registration
# would leave the frame that the stacks are in, so that none is asked for: each stack has its pose already.
set -euo pipefail
: "${AGE:?give the gestational age in weeks: AGE=29.4, or AGE=estimate}" "${OUT:?give a folder: OUT=out}"
[ $# -ge 1 ] || { echo "nesvor.sh: give the stacks" >&2; exit 2; }
mkdir -p "$OUT"
stacks=() masks=() originals=() poses=()
for stack in "$@"; do
    name=$(basename "$stack"); name=${name%.gz}; name=${name%.nii}
    # shellcheck disable=SC2086  # OPTIONS are words
    posepipe-tools align "$stack" --age "$AGE" --slices off -o "$OUT/$name" --upright "$OUT/$name.nii.gz" ${OPTIONS:-}
    pose=$(echo "$OUT/$name/${name}"_from-T?w_to-*_mode-image_xfm.txt)
    if grep -q '"QC": "fail"' "${pose%.txt}.json"; then
        echo "$stack: left out, its pose is not to be trusted; see $OUT/$name/$name.html" >&2
        continue
    fi
    # the mask under the same header: NeSVoR compares the two
    posepipe-tools reorient "$OUT/$name/${name}_desc-brain_mask.nii.gz" "$pose" -o "$OUT/${name}_mask.nii.gz"
    originals+=("$stack") poses+=("$pose") stacks+=("$OUT/$name.nii.gz") masks+=("$OUT/${name}_mask.nii.gz")
done
[ ${#stacks[@]} -ge 1 ] || { echo "nesvor.sh: no stack is left" >&2; exit 1; }
# shellcheck disable=SC2086  # NESVOR are words
nesvor reconstruct --input-stacks "${stacks[@]}" --stack-masks "${masks[@]}" --output-volume "$OUT/volume.nii.gz" ${NESVOR:---registration none}
posepipe-tools restore "$OUT/volume.nii.gz" "${poses[0]}" --like "${originals[0]}" --order 3 -o "$OUT/volume_on_stack.nii.gz"
