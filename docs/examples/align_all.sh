#!/usr/bin/env bash
# Every image of a table to its atlas; one that cannot be aligned does not stop the others.
#
#   bash align_all.sh images.csv OUT [options of posepipe-tools align ...]
#
# images.csv has a line for each image, no heading: its path and its age in weeks (or the word estimate). OUT/verdicts.tsv says what came of
# each. Exit code 1 if any could not be aligned, or has a pose that is not to be trusted (fail).
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash align_all.sh images.csv OUT [options of posepipe-tools align ...]" >&2; exit 2; }
table=$1 out=$2
shift 2
mkdir -p "$out"
printf 'image\tverdict\n' > "$out/verdicts.tsv"
code=0
while IFS=, read -r image age || [ -n "$image" ]; do
    name=$(basename "$image"); name=${name%.gz}; name=${name%.nii}
    verdict=none
    if posepipe-tools align "$image" --age "$age" -o "$out/$name" --upright "$out/$name.nii.gz" "$@" < /dev/null; then
        verdict=$(sed -n 's/^ *"QC": "\([a-z]*\)",*$/\1/p' "$out/$name/${name}"_from-T?w_to-*_xfm.json)
    fi
    case $verdict in none | fail) code=1 ;; esac
    printf '%s\t%s\n' "$image" "$verdict" >> "$out/verdicts.tsv"
done < "$table"
exit $code
