# Tidies scdoc's output until mandoc -T lint has nothing to say: the title in
# capitals, no paragraph macro where a heading or another one makes it useless,
# and no zero-width spaces but at the ends of a line, where they have a use.

/^\.TH / {
	sub(/"[^"]*"/, toupper($2))
	print
	# scdoc says this before .TH, which resets it: names of keys stay whole.
	print ".nh"
	heading = 1
	next
}

# A paragraph is begun when its text comes, so that what stands between is known.
/^\.PP?$/ {
	wanted = !heading
	next
}

/^\.RE$/ {
	print
	wanted = 1
	next
}

/^\.(SH|SS) / {
	print
	wanted = 0
	heading = 1
	next
}

{
	if (wanted)
		print ".P"
	wanted = heading = 0
	middle = substr($0, 3)
	tail = ""
	if (middle ~ /\\&$/) {
		tail = "\\&"
		middle = substr(middle, 1, length(middle) - 2)
	}
	gsub(/\\&/, "", middle)
	print substr($0, 1, 2) middle tail
}
