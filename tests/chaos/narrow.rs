//! A narrow, long and lossy line to a plant: the catalog of the first site goes over it while jobs do, and neither waits
//! for the other to be done.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::crossing::sites_alive;
use crate::harness::raw::metric_at;
use crate::harness::seed::{Random, sized};
use crate::harness::wait::until;
use crate::harness::workflows;
use crate::line::Shape;
use crate::network::{Cut, Packets};
use crate::plan::Fault;
use crate::stage::{Layout, Stage};
use crate::stalls::Stalls;

/// The sites, and how many nodes each has.
const SITES: [(&str, u32); 2] = [("default", 3), ("plant", 3)];
/// The line: 100 ms there and back, and so many packets of a hundred lost.
const DELAY_MS: u32 = 50;
const KBIT: u32 = 256;
const LOSS_PERCENT: u32 = 5;
/// Bytes of a definition that cannot be compressed.
const RANDOM_BYTES: usize = 1_000;
/// Definitions deployed by one request.
const TOGETHER: usize = 100;
/// How long 10,000 definitions may take.
const WHOLE_BOUND: Duration = Duration::from_secs(15 * 60);
/// A job that is not back after this long has starved: many times what it takes on the line alone.
const JOB_BOUND: Duration = Duration::from_secs(30);
/// How long a deployment, or another question past the line, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A workflow whose file is about 1 KiB when compressed.
fn definition(number: usize, random: &mut Random) -> Vec<u8> {
    let bytes: Vec<u8> = (0..RANDOM_BYTES).map(|_| random.next().to_le_bytes()[0]).collect();
    let document = serde_json::json!({
        "document": { "dsl": "1.0.3", "namespace": "narrow", "name": format!("part-{number}"), "version": "1.0.0" },
        "do": [{ "it": { "set": { "noise": STANDARD.encode(bytes) } } }],
    });
    document.to_string().into_bytes()
}

/// The catalog of so many definitions crosses while jobs do.
pub(crate) async fn catalog_and_jobs(seed: u64) {
    let definitions = sized(150, 150, 10_000);
    let (first, plant): (Vec<usize>, Vec<usize>) = ((0..3).collect(), (3..6).collect());
    let line = Some(Shape { delay_ms: DELAY_MS, kbit: None });
    let mut stage = Stage::laid_out("narrow", &Layout { sites: &SITES, line, ..Layout::default() }).await;
    sites_alive(&stage, &[first.clone(), plant.clone()]).await;

    // Nothing of it goes over before the line is what it is to be.
    stage.strike(&[Fault::CutSide(plant.clone())]).await;
    deploy(&stage, definitions, seed).await;
    let loss = |from: &[usize], to: &[usize]| Cut {
        from: from.to_vec(),
        to: to.to_vec(),
        percent: LOSS_PERCENT,
        packets: Packets::All,
    };
    stage.build_walls(vec![loss(&first, &plant), loss(&plant, &first)]);
    stage.network.line().bound(Some(KBIT));
    let before = stage.network.line().taken_bytes();
    stage.heal().await;

    let (began, stalls) = (Instant::now(), Stalls::start());
    let (mut latencies, mut while_it_came) = (Vec::new(), 0);
    let mut spread = Box::pin(spread(&stage, &plant, began));
    let took = loop {
        let mut job = Box::pin(cross(&stage, seed, latencies.len()));
        let done = tokio::select! {
            took = &mut spread => Some(took),
            latency = &mut job => { latencies.push(latency); while_it_came += 1; None }
        };
        if let Some(took) = done {
            latencies.push(job.await);
            break took;
        }
    };
    drop(spread);
    let taken = stage.network.line().taken_bytes();
    let share = (taken[0] - before[0]) as f64 * 8.0 / took.as_secs_f64() / f64::from(KBIT * 1_000);
    latencies.sort_unstable();
    let worst = latencies[latencies.len() - 1];
    eprintln!(
        "figure narrow {definitions} definitions were on every node of the plant after {took:.1?}, over {KBIT} kbit/s \
         with {} ms there and back and {LOSS_PERCENT} % loss, {:.0} % of the line used; {while_it_came} jobs crossed and \
         were told of meanwhile, one after {:.1?} as a rule and {worst:.1?} at worst; {}",
        2 * DELAY_MS,
        share * 100.0,
        latencies[latencies.len() / 2],
        stalls.summary(),
    );
    assert!(took <= WHOLE_BOUND, "{definitions} definitions took {took:?}");
    assert!(while_it_came > 0, "no job crossed while the catalog did");
}

/// Deploys `count` definitions at the first node, and waits until its site has them.
async fn deploy(stage: &Stage, count: usize, seed: u64) {
    let (client, mut random) = (stage.cluster.client_with(&[0], PATIENCE, PATIENCE), Random::new(seed));
    let files: Vec<Vec<u8>> = (0..count).map(|number| definition(number, &mut random)).collect();
    for files in files.chunks(TOGETHER) {
        client.deploy(v1::DeployRequest { files: files.to_vec() }).await.expect("it is taken");
    }
    for node in 0..SITES[0].1 as usize {
        until_entries(stage, node, entries(stage, 0).await.expect("it answers"), PATIENCE).await;
    }
}

async fn entries(stage: &Stage, node: usize) -> Result<f64, String> {
    metric_at(stage.cluster.nodes[node].http_address(), "fleet_catalog_entries").await
}

async fn until_entries(stage: &Stage, node: usize, expected: f64, bound: Duration) {
    until(&format!("node-{} to have {expected} entries", node + 1), bound, || async {
        let has = entries(stage, node).await?;
        if has == expected { Ok(()) } else { Err(format!("{has}")) }
    })
    .await;
}

/// How long after `began` every node of `plant` has what the first node has.
async fn spread(stage: &Stage, plant: &[usize], began: Instant) -> Duration {
    let all = entries(stage, 0).await.expect("it answers");
    for node in plant {
        until_entries(stage, *node, all, WHOLE_BOUND).await;
    }
    began.elapsed()
}

/// How long it takes until a job that goes from the first site to the plant is known to have completed there.
async fn cross(stage: &Stage, seed: u64, number: usize) -> Duration {
    let began = Instant::now();
    let client = stage.cluster.client_with(&[0, 1, 2], PATIENCE, PATIENCE);
    let step = format!("narrow-{seed}-{number}-");
    let request = v1::SubmitRequest {
        job_id: JobId::generate().as_bytes().to_vec(),
        workflow: workflows::calls(&stage.recorder.url(), &step, 1, 0),
        site: SITES[1].0.to_owned(),
        ..v1::SubmitRequest::default()
    };
    let accepted = client.submit(request).await.expect("a site takes jobs for others, however far these are");
    let job = JobId::from_slice(&accepted.job_id).expect("it is an id").to_string();
    until("a job that crosses to be told of as completed", JOB_BOUND, || async {
        let request = v1::GetJobRequest { job: job.clone(), brief: true, ..v1::GetJobRequest::default() };
        let seen = client.get_job(request).await.map_err(|error| error.to_string())?;
        if seen.state == "completed" { Ok(()) } else { Err(format!("{} ({})", seen.state, seen.reason)) }
    })
    .await;
    assert_eq!(stage.recorder.of_step(&format!("{step}0")).len(), 1, "once");
    began.elapsed()
}
