# Runs commands inside a container for harness/sandbox/channel.py, which describes the frames on stdin and stdout.
# Perl, because every Debian and Ubuntu image has perl-base (and no module beyond it is used), while python may be missing
# or be the one under test.
use strict; use warnings;
use POSIX qw(:sys_wait_h setsid _exit);
use IO::Select;

$0 = 'aem-supervisor';
my $GRACE = 0.2;      # seconds to wait for output that is still in the pipe after the command has ended
my $CHUNK = 1 << 16;
my $TICKS = POSIX::sysconf(&POSIX::_SC_CLK_TCK);
my $SYS_prctl = { x86_64 => 157, aarch64 => 167 }->{(POSIX::uname())[4]};
# Orphans become our children, so that at a timeout we find even those that left their process group.
syscall($SYS_prctl, 36, 1, 0, 0, 0) if defined $SYS_prctl;
$SIG{PIPE} = 'IGNORE';
binmode STDIN; binmode STDOUT; $| = 1;

my %left;             # pipes that background processes of finished commands still hold: drained, so they never block

sub take {            # exactly n bytes of stdin; ends with the host
    my ($n) = @_; my $data = '';
    while (length $data < $n) {
        my $got = sysread(STDIN, $data, $n - length $data, length $data);
        _exit(0) unless $got;
    }
    return $data;
}

sub put {
    my ($data) = @_; my $sent = 0;
    while ($sent < length $data) {
        my $n = syswrite(STDOUT, $data, length($data) - $sent, $sent);
        _exit(0) unless $n;
        $sent += $n;
    }
}

sub now {             # seconds of a clock that nobody sets, in ticks of 10 ms
    return (POSIX::times())[0] / $TICKS;
}

sub processes {       # (parent -> [pids], pid -> start time in ticks) of every process in the container
    my (%of, %began);
    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $file, '<', $stat or next;
        my $line = <$file> // next;
        my ($pid) = $line =~ /^(\d+)/;
        my @fields = split ' ', substr $line, rindex($line, ')') + 2;
        push @{ $of{ $fields[1] } }, $pid;
        $began{$pid} = $fields[19];
    }
    return (\%of, \%began);
}

sub descendants {     # of us, leaving out the trees that were there before `since`: earlier commands left them running
    my ($since) = @_;
    my ($of, $began) = processes();
    my @todo = grep { $began->{$_} >= $since } @{ $of->{$$} // [] };
    my @found;
    while (defined(my $pid = shift @todo)) { push @found, $pid; push @todo, @{ $of->{$pid} // [] } }
    return @found;
}

sub kill_all {        # again and again, since what is being killed may be forking
    my ($leader) = @_;
    my (undef, $began) = processes();
    my $since = $began->{$leader} // 0;
    for (1 .. 50) {
        kill 'KILL', -$leader;
        my @alive = descendants($since);
        kill 'KILL', @alive if @alive;
        1 while waitpid(-1, WNOHANG) > 0;
        last unless descendants($since);
        select undef, undef, undef, 0.01;
    }
}

sub run {
    my ($timeout, $head_size, $tail_size, $cwd, $command) = @_;
    1 while waitpid(-1, WNOHANG) > 0;
    pipe(my $reader, my $writer) or die "pipe: $!";
    my $pid = fork() // return (71, 0, 0, "cannot fork: $!\n", '');
    if (!$pid) {
        setsid();
        open STDIN, '<', '/dev/null'; open STDOUT, '>&', $writer; open STDERR, '>&', $writer;
        $SIG{PIPE} = 'DEFAULT';
        if (!chdir $cwd) { print STDERR "cannot change to $cwd: $!\n"; _exit(72) }
        exec 'bash', '-c', $command or do { print STDERR "bash: $!\n"; _exit(126) };
    }
    close $writer;
    my ($head, $tail, $total) = ('', '', 0);
    my ($deadline, $timed_out, $status) = (now() + $timeout, 0, undef);
    my $select = IO::Select->new($reader, values %left);
    my ($open, $nap) = (1, 0.0001);
    while ($open || !defined $status) {
        my $wait = $deadline - now();
        if ($wait <= 0) {
            if (!defined $status) {
                $timed_out = 1; $status = 124;
                kill_all($pid);
                $deadline = now() + $GRACE;
                next;
            }
            last;
        }
        # Poll for the end: of a command that closed its output (usually by ending: the first nap is short), or of one
        # whose background processes keep it open.
        $nap *= 2 if !$open && $nap < 0.02;
        my $pause = $open ? 0.05 : $nap;
        $pause = $wait if $wait < $pause;
        select undef, undef, undef, $pause if !$select->count;
        for my $handle ($select->can_read($pause)) {
            my $got = sysread $handle, my $data, $CHUNK;
            if (!$got) {
                $select->remove($handle); delete $left{fileno $handle};
                if ($handle == $reader) { $open = 0 } else { close $handle }
                next;
            }
            next if $handle != $reader;
            $total += $got;
            my $room = $head_size - length $head;
            $head .= substr $data, 0, $room, '' if $room > 0;
            $tail .= $data;
            $tail = substr $tail, -$tail_size if length $tail > $tail_size + (1 << 20);
        }
        if (!defined $status && waitpid($pid, WNOHANG) == $pid) {
            $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
            $deadline = now() + $GRACE;
        }
    }
    if ($open) { $left{fileno $reader} = $reader } else { close $reader }
    $tail = substr $tail, -$tail_size if length $tail > $tail_size;
    return ($status, $timed_out, $total - length($head) - length($tail), $head, $tail);
}

sub kill_everything { # but us and process 1, which no signal from inside can end
    for (1 .. 3) { kill 'KILL', -1; select undef, undef, undef, 0.01 }
    1 while waitpid(-1, WNOHANG) > 0;
}

while (1) {
    my $select = IO::Select->new(\*STDIN, values %left);
    my $asked = 0;
    for my $handle ($select->can_read) {
        if ($handle == \*STDIN) { $asked = 1; next }
        my $got = sysread $handle, my $data, $CHUNK;
        if (!$got) { delete $left{fileno $handle}; close $handle }
    }
    next unless $asked;
    my $header = '';
    $header .= take(1) while $header !~ /\n\z/;
    if ($header eq "ready?\n") { put("ready\n"); next }
    if ($header eq "kill\n") { kill_everything(); put("killed\n"); next }
    my ($timeout, $head_size, $tail_size, $cwd_size, $size) = split ' ', $header;
    my $cwd = take($cwd_size);
    my $command = take($size);
    my ($status, $timed_out, $dropped, $head, $tail) = run($timeout, $head_size, $tail_size, $cwd, $command);
    put(sprintf "%d %d %d %d %d\n%s%s", $status, $timed_out, $dropped, length $head, length $tail, $head, $tail);
}
