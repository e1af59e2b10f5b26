# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_distlock_global_optspecs
    string join \n h help t/ttl= w/wait= n/try E/busy-exit= m/message= c/shell signal= grace= on-lost= restarts= leftover= no-lock report= b/backend= e/endpoints= connect-timeout= config= cacert= cert= key= tls-server-name= insecure-skip-tls-verify user= password-file= token-file= namespace= partition= datacenter= log-format= v/verbose q/quiet V/version
end

function __fish_distlock_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_distlock_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_distlock_using_subcommand
    set -l cmd (__fish_distlock_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c distlock -n "__fish_distlock_needs_command" -s t -l ttl -d 'Set the lease time of the lock [default: 15s]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -s w -l wait -d 'Wait at most this long for the lock [default: forever]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -s E -l busy-exit -d 'Exit with this code if the lock is busy [default: 75]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -s m -l message -d 'Show this text to waiters [default: the CI job]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l signal -d 'Set the signal that asks the command to exit [default: TERM]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l grace -d 'Set the time from the soft signal to KILL [default: TTL/3, max 5s]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l on-lost -d 'Choose what to do if the lock is lost [default: kill]' -r -f -a "kill\t''
restart\t''
relock\t''"
complete -c distlock -n "__fish_distlock_needs_command" -l restarts -d 'Limit the number of restarts by --on-lost restart [default: unbounded]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l leftover -d 'Choose what to do with processes that outlive COMMAND [default: kill]' -r -f -a "kill\t''
wait\t''
leave\t''"
complete -c distlock -n "__fish_distlock_needs_command" -l report -d 'Write the outcome as JSON to FILE or to descriptor N' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -s b -l backend -d 'Choose the backend: etcd, consul, local' -r -f -a "etcd\t''
consul\t''
local\t''"
complete -c distlock -n "__fish_distlock_needs_command" -s e -l endpoints -d 'Connect to the servers at these addresses' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l connect-timeout -d 'Give up if no server answers within this time [default: 10s]' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l config -d 'Read settings from this file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l cacert -d 'Trust only the CA certificates in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l cert -d 'Authenticate with the client certificate in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l key -d 'Read the private key of the client certificate from this file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l tls-server-name -d 'Expect this name in the server\'s certificate' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l user -d 'Log in as this user' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l password-file -d 'Read the user\'s password from this file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l token-file -d 'Read Consul\'s ACL token from this file' -r -F
complete -c distlock -n "__fish_distlock_needs_command" -l namespace -d 'Use this namespace (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l partition -d 'Use this admin partition (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l datacenter -d 'Use this datacenter (Consul)' -r -f
complete -c distlock -n "__fish_distlock_needs_command" -l log-format -d 'Write events to stderr in this format [default: text]' -r -f -a "text\t''
json\t''"
complete -c distlock -n "__fish_distlock_needs_command" -s h -d 'Print the most common options'
complete -c distlock -n "__fish_distlock_needs_command" -l help -d 'Print the complete help'
complete -c distlock -n "__fish_distlock_needs_command" -s n -l try -d 'Do not wait for the lock'
complete -c distlock -n "__fish_distlock_needs_command" -s c -l shell -d 'Run COMMAND, a single word, with /bin/sh -c'
complete -c distlock -n "__fish_distlock_needs_command" -l no-lock -d 'Run COMMAND without a lock, with a warning'
complete -c distlock -n "__fish_distlock_needs_command" -l insecure-skip-tls-verify -d 'Accept any server certificate'
complete -c distlock -n "__fish_distlock_needs_command" -s v -l verbose -d 'Print each step to stderr'
complete -c distlock -n "__fish_distlock_needs_command" -s q -l quiet -d 'Print errors only; not for a busy lock or a signal'
complete -c distlock -n "__fish_distlock_needs_command" -s V -l version -d 'Print version'
complete -c distlock -n "__fish_distlock_needs_command" -f -a "run" -d 'Run COMMAND while holding NAME (long form of the above)'
complete -c distlock -n "__fish_distlock_needs_command" -f -a "doctor" -d 'Check whether a lock can be acquired, and report problems'
complete -c distlock -n "__fish_distlock_needs_command" -f -a "completions" -d 'Print the completion script of a shell'
complete -c distlock -n "__fish_distlock_needs_command" -f -a "man" -d 'Print the man page, for man -l -'
complete -c distlock -n "__fish_distlock_using_subcommand run" -s t -l ttl -d 'Set the lease time of the lock [default: 15s]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -s w -l wait -d 'Wait at most this long for the lock [default: forever]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -s E -l busy-exit -d 'Exit with this code if the lock is busy [default: 75]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -s m -l message -d 'Show this text to waiters [default: the CI job]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l signal -d 'Set the signal that asks the command to exit [default: TERM]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l grace -d 'Set the time from the soft signal to KILL [default: TTL/3, max 5s]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l on-lost -d 'Choose what to do if the lock is lost [default: kill]' -r -f -a "kill\t''
restart\t''
relock\t''"
complete -c distlock -n "__fish_distlock_using_subcommand run" -l restarts -d 'Limit the number of restarts by --on-lost restart [default: unbounded]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l leftover -d 'Choose what to do with processes that outlive COMMAND [default: kill]' -r -f -a "kill\t''
wait\t''
leave\t''"
complete -c distlock -n "__fish_distlock_using_subcommand run" -l report -d 'Write the outcome as JSON to FILE or to descriptor N' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -s b -l backend -d 'Choose the backend: etcd, consul, local' -r -f -a "etcd\t''
consul\t''
local\t''"
complete -c distlock -n "__fish_distlock_using_subcommand run" -s e -l endpoints -d 'Connect to the servers at these addresses' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l connect-timeout -d 'Give up if no server answers within this time [default: 10s]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l config -d 'Read settings from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l cacert -d 'Trust only the CA certificates in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l cert -d 'Authenticate with the client certificate in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l key -d 'Read the private key of the client certificate from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l tls-server-name -d 'Expect this name in the server\'s certificate' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l user -d 'Log in as this user' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l password-file -d 'Read the user\'s password from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l token-file -d 'Read Consul\'s ACL token from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand run" -l namespace -d 'Use this namespace (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l partition -d 'Use this admin partition (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l datacenter -d 'Use this datacenter (Consul)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand run" -l log-format -d 'Write events to stderr in this format [default: text]' -r -f -a "text\t''
json\t''"
complete -c distlock -n "__fish_distlock_using_subcommand run" -s n -l try -d 'Do not wait for the lock'
complete -c distlock -n "__fish_distlock_using_subcommand run" -s c -l shell -d 'Run COMMAND, a single word, with /bin/sh -c'
complete -c distlock -n "__fish_distlock_using_subcommand run" -l no-lock -d 'Run COMMAND without a lock, with a warning'
complete -c distlock -n "__fish_distlock_using_subcommand run" -l insecure-skip-tls-verify -d 'Accept any server certificate'
complete -c distlock -n "__fish_distlock_using_subcommand run" -s v -l verbose -d 'Print each step to stderr'
complete -c distlock -n "__fish_distlock_using_subcommand run" -s q -l quiet -d 'Print errors only; not for a busy lock or a signal'
complete -c distlock -n "__fish_distlock_using_subcommand run" -s h -l help -d 'Print help'
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -s b -l backend -d 'Choose the backend: etcd, consul, local' -r -f -a "etcd\t''
consul\t''
local\t''"
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -s e -l endpoints -d 'Connect to the servers at these addresses' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l connect-timeout -d 'Give up if no server answers within this time [default: 10s]' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l config -d 'Read settings from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l cacert -d 'Trust only the CA certificates in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l cert -d 'Authenticate with the client certificate in this PEM file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l key -d 'Read the private key of the client certificate from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l tls-server-name -d 'Expect this name in the server\'s certificate' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l user -d 'Log in as this user' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l password-file -d 'Read the user\'s password from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l token-file -d 'Read Consul\'s ACL token from this file' -r -F
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l namespace -d 'Use this namespace (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l partition -d 'Use this admin partition (Consul Enterprise)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l datacenter -d 'Use this datacenter (Consul)' -r -f
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l log-format -d 'Write events to stderr in this format [default: text]' -r -f -a "text\t''
json\t''"
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l insecure-skip-tls-verify -d 'Accept any server certificate'
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -s v -l verbose -d 'Print each step to stderr'
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -s q -l quiet -d 'Print errors only; not for a busy lock or a signal'
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -l json -d 'Print the result as JSON'
complete -c distlock -n "__fish_distlock_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c distlock -n "__fish_distlock_using_subcommand completions" -s h -l help -d 'Print help'
complete -c distlock -n "__fish_distlock_using_subcommand man" -s h -l help -d 'Print help'
