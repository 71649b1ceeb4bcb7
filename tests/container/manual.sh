# shellcheck shell=bash disable=SC2154 # repository and output are of lib.sh
# Reads the recipes of greeter(7), so that tests run them as they are printed. Scripts
# source this file after lib.sh.

# block SECTION [N]: prints the N-th block of a section (default: the first), as a reader
# would copy it.
block() {
	local found
	found=$(awk -v section="# $1" -v wanted="${2:-1}" '
		/^# / { inside = $0 == section; next }
		/^```/ { open = !open; if (inside && open) count++; next }
		inside && open && count == wanted' "$repository/man/greeter.7.scd" | sed 's/\\\\/\\/g')
	[[ -n $found ]] || fail "greeter(7) has no block ${2:-1} in section '$1'"
	echo "$found"
}

# commented_line SECTION NAME: prints the line of a block that has a comment with this
# name, without the comment.
commented_line() {
	local found
	found=$(block "$1" | sed -n "s/ *# $2, port .*//p")
	[[ -n $found ]] || fail "greeter(7) has no line '$2' in section '$1'"
	echo "$found"
}

# The manual contains this text, apart from line breaks and markup.
expect_manual() {
	local text
	text=$(sed 's/\\\\/\\/g; s/\*//g' "$repository/man/greeter.7.scd" | tr -s ' \t\n' ' ')
	[[ $text == *"$1"* ]] || fail "greeter(7) does not contain: $1"
}

# The output of the last program does not contain this text.
expect_no_output() {
	[[ $output != *"$1"* ]] || fail "the output contains: $1"
}
