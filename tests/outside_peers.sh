#!/usr/bin/env bash
# Installs the programs of other authors that the tests talk to: DCMTK (senders), Orthanc (PACS),
# chromium (a person at the dashboard), axe-core (its judge), nginx and OHIF (a radiologist's viewer);
# and WordNet, whose synonyms METEOR counts, and rsyslog (who collects the audit trail).
# Only as root on Debian or Ubuntu, OHIF and axe-core wherever npm is; elsewhere it says which tests
# are left out.
# Never fails: each test that needs a peer looks for it and skips with the reason.
set -u

cache="${XDG_CACHE_HOME:-$HOME/.cache}/unibiomed-node-tests"

# Static files: no Node is needed to serve them, npm only to fetch them.
fetch() { # package, version, SHA-512, folder, a file in it, size, what is left out without it
  local package=$1 version=$2 sha512=$3 folder=$4 file=$5 size=$6 tests=$7 work archive reason=''
  [ -e "$folder/$file" ] && return
  echo "Fetching $package $version ($size, once) into $folder"
  work=$(mktemp -d)
  if ! command -v npm >/dev/null; then
    reason="npm is not installed"
  elif ! archive=$(cd "$work" && timeout 300 npm pack --silent "$package@$version" 2>/dev/null); then
    reason="npm could not fetch it"
  elif ! echo "$sha512  $work/$archive" | sha512sum --check --status; then
    reason="what npm fetched is not the file that this script expects"
  elif ! { tar -xzf "$work/$archive" -C "$work" &&
    mkdir -p "$(dirname "$folder")" && rm -rf "$folder" && mv "$work/package" "$folder"; }; then
    reason="it could not be unpacked"
  fi
  rm -rf "$work"
  [ -z "$reason" ] || echo "Left out: $tests ($reason)."
}
# MIT licence.
fetch @ohif/app 3.13.2 \
  5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10 \
  "${UNIBIOMED_TEST_OHIF:-$cache/ohif-3.13.2}" dist/index.html "50 MB" "the end-to-end tests of results in OHIF"
# MPL 2.0 licence; the tests hand it to the browser as it is.
fetch axe-core 4.14.1 \
  1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5 \
  "${UNIBIOMED_TEST_AXE:-$cache/axe-core-4.14.1}" axe.min.js "1 MB" "the check of the pages against WCAG"

missing=()
for tool in /usr/bin/storescu /usr/bin/dcmsend; do
  [ -x "$tool" ] || { missing+=(dcmtk); break; }
done
command -v Orthanc >/dev/null || [ -x /usr/sbin/Orthanc ] || missing+=(orthanc)
[ -x /usr/bin/chromium ] || missing+=(chromium)
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
[ -x /usr/sbin/nginx ] || missing+=(nginx-light)
[ -e /usr/share/wordnet/data.noun ] || missing+=(wordnet-base)
[ -x /usr/sbin/rsyslogd ] || missing+=(rsyslog)
ls /usr/lib/*/rsyslog/lmnsd_gtls.so >/dev/null 2>&1 || missing+=(rsyslog-gnutls)
[ "${#missing[@]}" -eq 0 ] && exit 0

say_left_out() {
  echo "Left out: the tests that need ${missing[*]} ($1)."
  echo "They run where DCMTK is at /usr/bin/storescu, Orthanc at /usr/sbin/Orthanc, chromium at"
  echo "/usr/bin/chromium, nginx at /usr/sbin/nginx, rsyslog at /usr/sbin/rsyslogd and WordNet in"
  echo "/usr/share/wordnet."
}

if [ "$(id -u)" -ne 0 ]; then
  say_left_out "not installed, and installing them needs root; on Debian: apt-get install ${missing[*]}"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  say_left_out "not installed, and this is not Debian or Ubuntu"
  exit 0
fi

# Debian starts Orthanc as a service on install; the tests start their own, so this one is held back.
policy=/usr/sbin/policy-rc.d
held=0
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && held=1
fi
echo "Installing the outside test peers: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}")
"${install[@]}" >/dev/null 2>&1 || { apt-get update --quiet --quiet >/dev/null 2>&1; "${install[@]}" >/dev/null; }
result=$?
[ "$held" -eq 1 ] && rm -f "$policy"
[ "$result" -eq 0 ] || say_left_out "apt-get could not install them"
exit 0
