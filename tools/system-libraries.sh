#!/bin/sh
# The system libraries that a Python package cannot bring: what Qt 6's X11 plugin and OpenGL link to, and the
# X server that draws windows where there is no display.
#
# On Debian and Ubuntu, as root, installs what is missing. Everywhere else names it and goes on: the window may
# still open, and the error that Qt gives otherwise does not say what to install.
set -eu

[ "$(uname -s)" = Linux ] || exit 0

# Debian package, and the file or command that proves its presence where there is no dpkg.
NEEDED="
libegl1 libEGL.so.1
libgl1 libGL.so.1
libgl1-mesa-dri -
libdbus-1-3 libdbus-1.so.3
libfontconfig1 libfontconfig.so.1
libglib2.0-0 libglib-2.0.so.0
libx11-xcb1 libX11-xcb.so.1
libxkbcommon0 libxkbcommon.so.0
libxkbcommon-x11-0 libxkbcommon-x11.so.0
libxcb-cursor0 libxcb-cursor.so.0
libxcb-glx0 libxcb-glx.so.0
libxcb-icccm4 libxcb-icccm.so.4
libxcb-image0 libxcb-image.so.0
libxcb-keysyms1 libxcb-keysyms.so.1
libxcb-randr0 libxcb-randr.so.0
libxcb-render-util0 libxcb-render-util.so.0
libxcb-shape0 libxcb-shape.so.0
libxcb-shm0 libxcb-shm.so.0
libxcb-sync1 libxcb-sync.so.1
libxcb-xfixes0 libxcb-xfixes.so.0
libxcb-xkb1 libxcb-xkb.so.1
fonts-dejavu-core -
xauth xauth
xvfb xvfb-run
"

# Newer releases renamed some packages for 64-bit time: libglib2.0-0 is libglib2.0-0t64 there.
installed() {
    dpkg-query -W -f '${db:Status-Status}\n' "$1" "$1t64" 2>/dev/null | grep -qx installed
}

missing() {
    if command -v dpkg-query >/dev/null; then
        echo "$NEEDED" | while read -r package _; do
            [ -z "$package" ] || installed "$package" || echo "$package"
        done
        return
    fi
    libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || return 0
    echo "$NEEDED" | while read -r _ proof; do
        case $proof in
            '' | -) ;;
            lib*) echo "$libraries" | grep -qF "$proof" || echo "$proof" ;;
            *) command -v "$proof" >/dev/null || echo "$proof" ;;
        esac
    done
}

wanted=$(missing | tr '\n' ' ')
[ -n "$wanted" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "note: napari's window may need these, install them with your system's package manager: $wanted" >&2
    exit 0
fi

if [ "$(id -u)" -ne 0 ]; then
    echo "note: napari's window may need system libraries that are missing. To install them:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $wanted" >&2
    exit 0
fi

echo "Installing system libraries: $wanted"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q </dev/null || true # an old list may still do

# One unknown name would make apt-get install nothing at all.
names=""
for package in $wanted; do
    for name in "${package}t64" "$package"; do
        if apt-cache show "$name" 2>/dev/null | grep -q .; then
            names="$names $name"
            break
        fi
    done
done
# shellcheck disable=SC2086 # one word a package
[ -z "$names" ] || apt-get install -q -y --no-install-recommends $names </dev/null || true

wanted=$(missing | tr '\n' ' ')
[ -z "$wanted" ] || echo "note: these could not be installed, napari's window may not open: $wanted" >&2
