#!/usr/bin/env bash
# Installs the programs of other authors that the tests talk to: DCMTK (senders), Orthanc (PACS) and
# chromium (a person at the dashboard).
# Only as root on Debian or Ubuntu; elsewhere it says which tests are left out. Never fails:
# each test that needs a peer looks for it and skips with the reason.
set -u

missing=()
for tool in /usr/bin/storescu /usr/bin/dcmsend; do
  [ -x "$tool" ] || { missing+=(dcmtk); break; }
done
command -v Orthanc >/dev/null || [ -x /usr/sbin/Orthanc ] || missing+=(orthanc)
[ -x /usr/bin/chromium ] || missing+=(chromium)
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
[ "${#missing[@]}" -eq 0 ] && exit 0

say_left_out() {
  echo "Left out: the end-to-end tests against ${missing[*]} ($1)."
  echo "They run where DCMTK is at /usr/bin/storescu, Orthanc at /usr/sbin/Orthanc and chromium at"
  echo "/usr/bin/chromium."
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
