//! The arguments, with the help that explains them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use freehold_bench::{Profile, Workload};
use freehold_core::{
    CommandId, CommandName, GroupCount, InstanceName, KindName, OwnerDown, RecordId, RecordVersion, SiteName,
};

use crate::commands::bench::Suite;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a negative answer, such as not_found or rejected; verify: something differs
  2  wrong usage or configuration, or it could not be done; verify: a place that was asked for cannot be reached

Configuration: defaults < freehold.toml (or --config FILE) < FREEHOLD_… variables (FREEHOLD_NATS__URL for nats.url) < flags.

Start here:
  freehold dev --sites ewr,jfk,lga --kind customer
  freehold send customer create ewr-1 --body '{\"record\":{\"name\":\"Ada\"}}'
  freehold get customer ewr-1";

/// Services whose every record has one system of record: try them, run them, ask them, prove them.
#[derive(Debug, Parser)]
#[command(name = "freehold", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArguments {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The site's nats-servers, separated by commas [default: nats://127.0.0.1:4222].
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The configuration file; without it, freehold.toml where there is one.
    #[arg(long, global = true, value_name = "FILE", env = "FREEHOLD_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run sites, a hub and instances of the records service on this machine, to play with.
    Dev(DevArguments),
    /// Run one instance of the records service: any JSON record, no Rust needed. See `freehold records --help`.
    #[command(disable_help_flag = true)]
    Records {
        /// The service's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Make the streams that a site must have; doing it twice is harmless.
    Provision(ProvisionArguments),
    /// Show sites, instances and how far their copies are.
    #[command(after_help = "Example:\n  freehold --url nats://127.0.0.1:4222 status")]
    Status,
    /// Show a record.
    Get(GetArguments),
    /// List records in the order of their ids.
    List(ListArguments),
    /// Show the versions of a record that the log still has.
    History(HistoryArguments),
    /// Send a command that changes a record.
    Send(SendArguments),
    /// Move records to another site, one after the other; they can be changed all the while.
    Rehome(RehomeArguments),
    /// Take over what a lost site owns: from then on another site decides it.
    Takeover(TakeoverArguments),
    /// Show what a site had when it was taken over and that does not count; send it again, or forget it.
    Stranded(StrandedArguments),
    /// Give a site that has lost its log, or a part of it, what another site's mirror has.
    Restore(RestoreArguments),
    /// Look whether a running deployment is as Freehold needs it, and say how to mend what is not.
    Doctor(DoctorArguments),
    /// Measure Freehold on this machine, beside what nats-server and redb do without it.
    Bench(BenchArguments),
    /// Prove that all copies are equal to one another and to the streams, or show where they differ.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold dev
  freehold dev --sites ewr,jfk --kind customer --kind order --instances 1 --data ./play
  freehold dev --sites ewr,jfk,lga --kind customer --json
  freehold dev --data ./play --cut ewr     # in another terminal
  freehold dev --data ./play --heal ewr

With --json, exactly one line goes to stdout when all is ready:
  {\"hub\":{\"pid\":…,\"port\":…},\"sites\":{\"ewr\":{\"url\":…,\"server_pid\":…,\"instances\":[{\"id\":…,\"pid\":…}]},…}}

Ctrl-C ends everything; the same --data starts again with everything still there.")]
pub(crate) struct DevArguments {
    /// The sites.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…", default_values = ["ewr", "jfk", "lga"])]
    pub(crate) sites: Vec<SiteName>,
    /// A kind of record; repeat it for more.
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND", default_values = ["customer"])]
    pub(crate) kinds: Vec<KindName>,
    /// Instances of the records service at each site.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) instances: u16,
    /// The first site's client port; the other sites and then the hub get the ports after it.
    #[arg(long, default_value_t = 4222)]
    pub(crate) port: u16,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "freehold-dev")]
    pub(crate) data: PathBuf,
    /// Where new ids belong: `prefix` (the part before the first `-` names the site), or one site for all.
    #[arg(long, default_value = "prefix", value_name = "prefix|SITE", value_parser = parse_home)]
    pub(crate) home: String,
    /// Start servers and instances that have ended again.
    #[arg(long)]
    pub(crate) restart: bool,
    /// Cut the link of this site of the `freehold dev` that runs on --data, and return.
    #[arg(long, value_name = "SITE", conflicts_with_all = ["heal", "restart", "sites", "kinds", "instances", "port", "home"])]
    pub(crate) cut: Option<SiteName>,
    /// Heal the link of this site of the `freehold dev` that runs on --data, and return when it is there again.
    #[arg(long, value_name = "SITE", conflicts_with_all = ["restart", "sites", "kinds", "instances", "port", "home"])]
    pub(crate) heal: Option<SiteName>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold provision --site ewr --sites ewr,jfk,lga --kind customer --dry-run
  freehold --url nats://ewr.example:4222 provision --site ewr --sites ewr,jfk,lga --kind customer --groups 64 --replicas 3
  freehold provision --site ewr --sites ewr,jfk,lga --permissions

Without --site, every site of --sites is provisioned through the links between them.")]
pub(crate) struct ProvisionArguments {
    /// The site to provision; without it, all of --sites.
    #[arg(long)]
    pub(crate) site: Option<SiteName>,
    /// All sites: each one gets a mirror of every other one's records.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<SiteName>,
    /// A kind of record; repeat it for more.
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<KindName>,
    /// Groups of each kind, 1 to 1024: the same at every site and for good [default: 64].
    #[arg(long, value_name = "COUNT", value_parser = parse_groups)]
    pub(crate) groups: Option<GroupCount>,
    /// Copies of each stream within a site: 1, 3 or 5 [default: 1].
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas: Option<usize>,
    /// Updates of a record that the log keeps, at least 8 [default: 64].
    #[arg(long, value_name = "COUNT")]
    pub(crate) history: Option<u64>,
    /// How long outcomes are kept, in milliseconds [default: 3600000].
    #[arg(long, value_name = "MS")]
    pub(crate) outcomes_ms: Option<u64>,
    /// The most bytes that the command log holds [default: 1073741824].
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_command_log_bytes: Option<i64>,
    /// How long the server remembers the message ids of commands, in milliseconds [default: 120000].
    #[arg(long, value_name = "MS")]
    pub(crate) duplicate_window_ms: Option<u64>,
    /// Make a consumer for each other site's mirror, and mirrors that read such consumers: no site needs the right to make
    /// a consumer at another.
    #[arg(long)]
    pub(crate) mirror_consumers: bool,
    /// Only show what would change.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only print what each role may publish and subscribe to, for nats-server's configuration; nothing is asked.
    #[arg(long)]
    pub(crate) permissions: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold get customer ewr-1
  freehold --json get customer ewr-1 --min-version 3 | jq .record")]
pub(crate) struct GetArguments {
    /// The kind of record.
    pub(crate) kind: KindName,
    /// Its id.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: RecordId,
    /// Wait until this copy has at least this version.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) min_version: Option<RecordVersion>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold list customer
  freehold list customer --prefix ewr- --limit 1000
  freehold --json list customer --all > customers.jsonl

With --json, one record a line. To go on behind a record, give its id as --cursor.")]
pub(crate) struct ListArguments {
    /// The kind of record.
    pub(crate) kind: KindName,
    /// Only ids that start with this.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub(crate) prefix: String,
    /// The most records.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// All records, page by page.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Start behind this id.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) cursor: Option<RecordId>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  freehold history customer ewr-1")]
pub(crate) struct HistoryArguments {
    /// The kind of record.
    pub(crate) kind: KindName,
    /// Its id.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: RecordId,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold send customer create ewr-1 --body '{\"record\":{\"name\":\"Ada\"}}'
  freehold send customer create --body @customer.json          (the service mints an id)
  freehold send customer patch ewr-1 --body '{\"patch\":{\"city\":\"Newark\"}}' --if-version 1
  freehold send customer delete ewr-1 --command-id 2026-07-14/delete

A command that is sent again with the same --command-id changes nothing twice and gets the first answer.")]
pub(crate) struct SendArguments {
    /// The kind of record.
    pub(crate) kind: KindName,
    /// The command, such as `create`.
    pub(crate) command: CommandName,
    /// The record's id; some commands mint one.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: Option<RecordId>,
    /// The command's fields, a JSON object: the text itself, `@FILE`, or `-` for stdin.
    #[arg(
        long,
        value_name = "JSON|@FILE|-",
        allow_hyphen_values = true,
        default_value = "{}",
        hide_default_value = true
    )]
    pub(crate) body: String,
    /// The idempotency key; without it, one is made and shown where the outcome is unknown.
    #[arg(long, value_name = "ID", value_parser = parse_command_id)]
    pub(crate) command_id: Option<CommandId>,
    /// What to wait for: `accepted` (the command is in the log), `applied` (it is decided and in this copy) or `sites=N` (N
    /// other sites have confirmed it, too).
    #[arg(long, value_name = "MODE")]
    pub(crate) wait: Option<String>,
    /// Refuse unless the record has this version; 0 for none yet.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub(crate) if_version: Option<RecordVersion>,
    /// Where another site owns the record and cannot be reached: `queue` keeps the command, `fail` refuses it at once.
    #[arg(long, value_name = "queue|fail")]
    pub(crate) owner_down: Option<OwnerDown>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold rehome customer --record ewr-1 --from ewr --to jfk
  freehold rehome customer --prefix ewr-vip --from ewr --to jfk --dry-run
  freehold rehome customer --all --from ewr --to jfk

Both sites must be there. Commands that arrive meanwhile are decided by whoever owns the record when their turn comes, and clients
need not know. Once interrupted, the same command goes on where it was. With --prefix and --all the right to create such records moves,
too.")]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false))]
pub(crate) struct RehomeArguments {
    /// The kind of record.
    pub(crate) kind: KindName,
    /// One record.
    #[arg(long, value_name = "ID", group = "which")]
    pub(crate) record: Option<RecordId>,
    /// All records whose ids start with this.
    #[arg(long, value_name = "PREFIX", group = "which")]
    pub(crate) prefix: Option<String>,
    /// All records.
    #[arg(long, group = "which")]
    pub(crate) all: bool,
    /// The site that owns them now; records of other sites stay where they are.
    #[arg(long, value_name = "SITE")]
    pub(crate) from: SiteName,
    /// The site that is to own them.
    #[arg(long, value_name = "SITE")]
    pub(crate) to: SiteName,
    /// Show what would move, and move nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold takeover --lost ewr --by jfk --dry-run
  freehold takeover --lost ewr --by jfk
  freehold takeover --lost ewr --by jfk --yes --without lga

Every other site is asked to take no more of the lost site's log; what the furthest of them has is the cut. Everything up to the cut
counts, nothing behind it does: when the lost site returns it sets that aside (`freehold stranded`) and becomes a copy. Give its
records back with `freehold rehome`. A site that answers --without is not asked: what only it has is lost. Doing it twice, or
going on where it was interrupted, is harmless. Of two takeovers at a time one wins, and the other is told.

Exit code 1 if another takeover was quicker, or the operator said no.")]
pub(crate) struct TakeoverArguments {
    /// The site that is lost.
    #[arg(long, value_name = "SITE")]
    pub(crate) lost: SiteName,
    /// The site that takes over what it owned.
    #[arg(long, value_name = "SITE")]
    pub(crate) by: SiteName,
    /// All sites; without it, those of the configuration, or those that answer and the lost one.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<SiteName>,
    /// A site that does not answer either: go on without it. Repeat it for more.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) without: Vec<SiteName>,
    /// A kind that all sites serve; without it, one that is served. The takeover is of all kinds.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<KindName>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only show what would be kept and lost.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold restore --site ewr --sites ewr,jfk,lga
  freehold restore --site ewr --sites ewr,jfk,lga --yes

An instance does not start where another site has more of its site's log than the site itself: its disk was lost, or put back from an
old copy. This makes the log anew from the furthest mirror: the same messages at the same places. Stop the site's instances first, and
provision the site if its streams are gone. All other sites must answer, so that the furthest is found.")]
pub(crate) struct RestoreArguments {
    /// The site.
    #[arg(long, value_name = "SITE")]
    pub(crate) site: SiteName,
    /// All sites; without it, those of the configuration, or those that answer.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<SiteName>,
    /// Do it, and do not only say what would be done.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold doctor
  freehold --json doctor --sites ewr,jfk,lga
  freehold doctor --sites ewr,jfk --monitoring 127.0.0.1:8222,127.0.0.1:8223
  FREEHOLD_NATS__NKEY_SEED_FILE=service.seed freehold doctor --site ewr --sites ewr,jfk --role service

Looks at servers, domains, clocks, disks, streams, mirrors, instances and copies of every site, through the links between them, and at what
the user may do who asks. It changes nothing.

Exit code 1 if something is to be mended; what is only worth a look does not count.")]
pub(crate) struct DoctorArguments {
    /// The sites; without it, those of the configuration, or those that answer.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<SiteName>,
    /// Monitoring ports of servers, to see what only they tell.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    pub(crate) monitoring: Vec<String>,
    /// Whose permissions this user must have.
    #[arg(long, value_enum, default_value_t = RoleName::Operator)]
    pub(crate) role: RoleName,
    /// The site at which the user has this role [default: that of the configuration, or the first].
    #[arg(long, value_name = "SITE")]
    pub(crate) site: Option<SiteName>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleName {
    /// Makes, changes and removes streams.
    Operator,
    /// An instance of a service.
    Service,
    /// Sends requests to services.
    Caller,
}

impl RoleName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Service => "service",
            Self::Caller => "caller",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold stranded --site ewr
  freehold --json stranded --site ewr > stranded.jsonl
  freehold stranded --site ewr --resubmit
  freehold stranded --site ewr --forget

Updates and outcomes are what the site had decided; commands are what it had taken and nothing has decided that counts. --resubmit
sends each command again under its own id, so that none is done twice. With --json, one entry a line.")]
pub(crate) struct StrandedArguments {
    /// The site.
    #[arg(long, value_name = "SITE")]
    pub(crate) site: SiteName,
    /// Send its commands again, in the order in which they were taken.
    #[arg(long, conflicts_with = "forget")]
    pub(crate) resubmit: bool,
    /// Forget all of it.
    #[arg(long)]
    pub(crate) forget: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold verify
  freehold verify --sites ewr,jfk,lga --kind customer
  freehold --json verify --sites ewr,jfk,lga --kind customer --patience 60

Every live instance's copy is compared with the records stream of each site, read from its own servers: counts and content
hashes of each group, and record by record where those differ. It may run under traffic: a copy is compared with the stream
as it was at the copy's own position. A copy that stays behind for --patience seconds counts as different: after a cut, mirrors
can need that long.

Exit code 1 if anything differs, 2 if a place that was asked for cannot be reached and nothing else differs.")]
pub(crate) struct VerifyArguments {
    /// The sites, whose instances and streams are compared; without it, those that answer.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    pub(crate) sites: Vec<SiteName>,
    /// The kinds; without it, those that are served.
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<KindName>,
    /// An instance that must answer; repeat it for more. All that answer are compared anyway.
    #[arg(long = "instance", value_delimiter = ',', value_name = "NAME")]
    pub(crate) instances: Vec<InstanceName>,
    /// Seconds that a copy may take to come as far as the stream.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// The most records that are listed; all are counted.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) limit: usize,
}

fn parse_groups(text: &str) -> Result<GroupCount, String> {
    let count: u16 = text.parse().map_err(|_| "1 to 1024 groups are possible".to_owned())?;
    GroupCount::new(count).map_err(|error| error.to_string())
}

fn parse_version(text: &str) -> Result<RecordVersion, String> {
    text.parse().map(RecordVersion).map_err(|_| "a version is a number from 0".to_owned())
}

fn parse_command_id(text: &str) -> Result<CommandId, String> {
    CommandId::from_caller(text).map_err(|error| error.to_string())
}

fn parse_home(text: &str) -> Result<String, String> {
    if text != "prefix" {
        text.parse::<SiteName>().map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  freehold bench
  freehold bench --workload hot --in-flight 64
  freehold bench --profile sync-always --rate 2000
  freehold bench --suite failover --suite copies --most-records 100000
  freehold bench --all --json --plots plots

A server, instances of the records service and the client that sends run on this machine, on ports and files of their own, and end with
the command. The floor is the same NATS and redb operations without any logic, in turns with Freehold. Build with --release.

With --json, one line for each run: {\"suite\":…,\"name\":…,\"freehold\":{\"per_second\":…},\"floor\":{…},\"ratio\":…} for loads, with
times in microseconds; the other suites name their units.")]
pub(crate) struct BenchArguments {
    /// What is asked for.
    #[arg(long, value_enum, default_value_t = Workload::Uniform)]
    pub(crate) workload: Workload,
    /// Requests that are in flight all the time.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// Requests that are sent each second whatever comes back, instead of --in-flight.
    #[arg(long, value_name = "COUNT", conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// How the servers store what they acknowledge.
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub(crate) profile: Profile,
    /// Instances of the records service.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) instances: u16,
    /// Groups of the kind.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) groups: u16,
    /// Records that there are.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: u64,
    /// Bytes of a record.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) record_bytes: usize,
    /// Seconds that each turn is measured.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// How often Freehold and the floor have their turn; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Measurements that belong together, instead of one workload; repeat it for more.
    #[arg(long = "suite", value_enum, value_name = "SUITE", conflicts_with_all = ["workload", "in_flight", "rate", "profile", "instances"])]
    pub(crate) suites: Vec<Suite>,
    /// All suites, one after the other: some twenty minutes, and 15 GB of disk.
    #[arg(long, conflicts_with_all = ["suites", "workload", "in_flight", "rate", "profile", "instances"])]
    pub(crate) all: bool,
    /// The suites stop growing at so many records.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(crate) most_records: u64,
    /// How often an instance is killed; it hangs and is stopped a fifth as often.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) failovers: u16,
    /// Where to draw how figures grow, as SVG.
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Be the floor.
    #[arg(long, hide = true, value_name = "JSON")]
    pub(crate) serve_floor: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
