# bash completion for aquifer and its programs. Installed as share/bash-completion/completions/aquifer, with links
# for the other programs; or source it.
#
# Commands, arguments and options come from --help, so they are those of the installed version; names of devices,
# volumes and snapshots from the --json listings, asked for quietly. In a shell, help is asked once per command.

declare -gA _aquifer_help_cache

# _aquifer_help PROGRAM [WORD…]: its --help, kept.
_aquifer_help() {
	local key="$*"
	[[ -n ${_aquifer_help_cache[$key]+set} ]] || _aquifer_help_cache[$key]=$("$@" --help 2>/dev/null)
	printf '%s\n' "${_aquifer_help_cache[$key]}"
}

# The lines "WORDS ARGUMENTS" of all commands.
_aquifer_commands() {
	local line
	while IFS= read -r line; do
		[[ $line == '  '[a-z]* ]] || continue
		line=${line#  }
		printf '%s\n' "${line%%  *}"
	done <<<"$(_aquifer_help "$1")"
}

# The options in a --help text: "--name=" with a value, "--force" without.
_aquifer_options() { sed -nE 's/^ +(-[a-zA-Z], )?(--[a-z-]+=?).*/\2/p'; }

# Values of "KEY": "VALUE" in JSON, in order.
_aquifer_values() { grep -oE "\"$1\": ?\"[^\"]*\"" | sed -E 's/^[^:]*: ?"(.*)"$/\1/'; }

# _aquifer_ask WORD…: a listing as JSON, of the --root in the line.
_aquifer_ask() { timeout 3 "$_aquifer_program" "$@" ${_aquifer_root:+--root "$_aquifer_root"} --json 2>/dev/null </dev/null; }

_aquifer_devices() { _aquifer_ask list | _aquifer_values name; }
_aquifer_volumes() { _aquifer_ask volume list | _aquifer_values name; }
_aquifer_snapshots() {
	local json
	json=$(_aquifer_ask snapshot list)
	paste -d@ <(_aquifer_values volume <<<"$json") <(_aquifer_values name <<<"$json") | grep -vE '^@|@$'
}
_aquifer_hosts() { _aquifer_ask agent list | _aquifer_values host; }
_aquifer_servers() { _aquifer_ask server list | _aquifer_values id; }
_aquifer_formats() { printf 'raw\n'; }

# What may stand for an argument that the help calls $1, in command $2.
_aquifer_argument() {
	local part
	for part in ${1//|/ }; do
		part=${part#[}
		part=${part%...}
		case $part in
		DEVICE*) _aquifer_devices ;;
		VOLUME | VOLUME] | OLD) _aquifer_volumes ;;
		VOLUME@* | VOLUME[[]@* | 'NAME[@SNAP]') _aquifer_volumes; _aquifer_snapshots ;;
		SRC) _aquifer_volumes; compgen -f -- "$cur" ;;
		FILE | 'FILE]' | DST | GRAPH) compgen -f -- "$cur" ;;
		FORMAT) _aquifer_formats ;;
		ID) _aquifer_servers ;;
		HOST) _aquifer_hosts ;;
		URL) _aquifer_value --catalog ;;
		--*) printf '%s\n' "$part" ;;
		KEY=VALUE) printf '%s\n' io-timeout= io-timeout=forever io-timeout=30s ;;
		NAME)
			case $2 in
			'volume create' | 'volume import') ;;
			volume*) _aquifer_volumes ;;
			*) _aquifer_devices ;;
			esac
			;;
		esac
	done
}

# The values of option $1.
_aquifer_value() {
	case $1 in
	--as) printf '%s\n' loop nbd ;;
	--io-timeout) printf '%s\n' forever 30s 5m ;;
	--export) printf '%s\n' loop: nbd: ;;
	--to) [[ $command == migrate ]] && _aquifer_hosts || _aquifer_formats ;;
	--for) printf '%s\n' agent server ;;
	--host) _aquifer_hosts ;;
	--ttl) printf '%s\n' 30m 1h 2d ;;
	--replicas) printf '%s\n' 1 2 3 ;;
	--min-replicas) printf '%s\n' 1 2 3 ;;
	--catalog) printf '%s\n' sqlite: etcd:http: etcd:https: ;;
	--root | --data) compgen -d -- "$2" ;;
	--graph | --backing) compgen -f -- "$2" ;;
	esac
}

# Finds the command in `words`: sets `command`, `arguments` (what its help calls them) and `done` (those given).
_aquifer_parse() {
	local i word line found='' value='' helping=''
	local -a plain=()
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		word=${words[i]}
		if [[ -n $value ]]; then
			[[ $value != --root ]] || _aquifer_root=$word
			value=''
		elif [[ $word == --root=* ]]; then
			_aquifer_root=${word#--root=}
		elif [[ $word == --* ]]; then
			case $word in
			--root | --name | --as | --graph | --listen | --to | --backing | --replicas | --min-replicas | --io-timeout | --catalog | --for | --host | --ttl) value=$word ;;
			esac
		elif [[ $word != help || ${#plain[@]} -gt 0 || -n $helping ]]; then
			plain+=("$word")
		else
			helping=1
		fi
	done
	pending=$value
	command='' arguments='' given=${#plain[@]}
	while IFS= read -r line; do
		found=${line%%[^a-z -]*}
		found=${found%% }
		found=$(echo $found)
		case $found in
		"${plain[0]-} ${plain[1]-}") given=$((${#plain[@]} - 2)) ;;
		"${plain[0]-}") given=$((${#plain[@]} - 1)) ;;
		*) continue ;;
		esac
		command=$found arguments=${line#"$found"}
		[[ -z $helping ]] || arguments=''
		return
	done <<<"$(_aquifer_commands "$_aquifer_program")"
	group=${plain[0]-}
}

# The next word of a command that isn't complete: of all commands, those that begin with what is there.
_aquifer_next_word() {
	local line
	while IFS= read -r line; do
		line=${line%%[^a-z -]*}
		if ((given == 0)); then
			printf '%s\n' "${line%% *}"
		elif ((given == 1)) && [[ $line == "$group "* ]]; then
			line=${line#"$group "}
			printf '%s\n' "${line%% *}"
		fi
	done <<<"$(_aquifer_commands "$_aquifer_program")" | sort -u
}

# Words of the line up to the cursor, split at blanks only: bash itself also splits at '@', '=' and ':'.
_aquifer_words() {
	local line=${COMP_LINE:0:COMP_POINT}
	read -ra words <<<"$line"
	[[ $line != *[[:blank:]] ]] || words+=('')
	cur=${words[-1]}
}

# Offers the lines on standard input that begin with $1, less what bash has already taken as a word of its own.
_aquifer_offer() {
	local line taken=''
	[[ $cur != *[@=:]* ]] || taken=${cur%"${cur##*[@=:]}"}
	while IFS= read -r line; do
		[[ -n $line && $line == "$1"* ]] || continue
		line=$2$line
		COMPREPLY+=("${line#"$taken"}")
	done
	[[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *[=:/] ]] || compopt -o nospace 2>/dev/null
	return 0
}

_aquifer() {
	local -a words
	local cur command arguments given group='' pending='' _aquifer_root='' _aquifer_program=$1
	local -a names
	COMPREPLY=()
	_aquifer_words
	_aquifer_parse
	if [[ -n $pending ]]; then
		_aquifer_offer "$cur" '' < <(_aquifer_value "$pending" "$cur")
	elif [[ $cur == --*=* ]]; then
		_aquifer_offer "${cur#*=}" "${cur%%=*}=" < <(_aquifer_value "${cur%%=*}" "${cur#*=}")
	elif [[ $cur == -* ]]; then
		# shellcheck disable=SC2086
		_aquifer_offer "$cur" '' < <(_aquifer_help "$1" $command | _aquifer_options)
	elif [[ -z $command ]]; then
		_aquifer_offer "$cur" '' < <(_aquifer_next_word)
	else
		read -ra names <<<"$arguments"
		((${#names[@]} > 0)) || return 0
		# the last argument may be repeated: VOLUME@SNAP...
		((given < ${#names[@]})) || [[ ${names[-1]-} != *... ]] || given=$((${#names[@]} - 1))
		((given < ${#names[@]})) || return 0
		_aquifer_offer "$cur" '' < <(_aquifer_argument "${names[given]}" "$command" | sort -u)
	fi
}

# aquifer-agent, aquifer-tapdisk, aquifer-server: options, their values, and files.
_aquifer_daemon() {
	local -a words
	local cur before _aquifer_root='' _aquifer_program=$1
	COMPREPLY=()
	_aquifer_words
	before=${words[-2]-}
	if [[ $cur == --*=* ]]; then
		_aquifer_offer "${cur#*=}" "${cur%%=*}=" < <(_aquifer_value "${cur%%=*}" "${cur#*=}")
	elif [[ $cur == -* ]]; then
		_aquifer_offer "$cur" '' < <(_aquifer_help "$1" | _aquifer_options)
	elif [[ $before == --* ]] && [[ -n $(_aquifer_value "$before" "$cur") ]]; then
		_aquifer_offer "$cur" '' < <(_aquifer_value "$before" "$cur")
	else
		_aquifer_offer "$cur" '' < <(compgen -f -- "$cur")
	fi
}

complete -F _aquifer aquifer
complete -F _aquifer_daemon aquifer-agent aquifer-tapdisk aquifer-server
