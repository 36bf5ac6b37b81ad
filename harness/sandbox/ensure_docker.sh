#!/usr/bin/env bash
# Make a Docker engine answer: nothing to do where one does; on Debian/Ubuntu as root it is installed and started;
# elsewhere one line says what to do (exit 3). Also installs debootstrap there, with which base images are made.
set -euo pipefail

answers() { curl --silent --max-time 10 --unix-socket /var/run/docker.sock http://localhost/_ping > /dev/null 2>&1 ||
  { command -v docker > /dev/null && timeout 10 docker info > /dev/null 2>&1; }; }

missing() { ! command -v "$1" > /dev/null && ! [ -x "/usr/sbin/$1" ]; }

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; }

if can_install && missing debootstrap; then install debootstrap; fi
answers && exit 0

if ! can_install; then
  echo "no Docker engine answers: start it (systemctl start docker), or see https://docs.docker.com/engine/install" >&2
  exit 3
fi
if missing dockerd; then install docker.io iptables; fi
log=/var/log/dockerd-aem.log
setsid nohup dockerd > "$log" 2>&1 < /dev/null &
for _ in $(seq 60); do
  answers && exit 0
  sleep 1
done
echo "dockerd did not start within 60 s; its log: $log" >&2
exit 3
