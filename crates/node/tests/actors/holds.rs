//! The hold after a recovery: it ends once every robot has reconciled, whatever became of the first word of that.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet_replication::command::Action;
use fleet_store::record::JobState;
use fleet_store::state::jobs;

use crate::support::{Fleet, done, id};

#[tokio::test(start_paused = true)]
async fn a_robot_that_has_reconciled_is_told_of_until_it_is_applied() {
    let mut fleet = Fleet::start(1, &[]).await;
    fleet.log.found(&[id(1), id(2)]).await;
    fleet.log.commit(Action::Hold { awaited: vec![id(2)] }).await.unwrap().accepted().unwrap();
    fleet.log.loses_reconciled.store(true, Ordering::Relaxed);
    fleet.start_node(2, 1, 2).await;
    fleet.log.elect(id(1));
    let job = fleet.submit(1, "call").await;
    let proposed = async {
        while fleet.log.reconciled_proposed.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), proposed).await.expect("the robot opens a session");
    assert!(fleet.log.job(job).state == JobState::Queued && fleet.effects.is_quiet(), "all is held");
    let session = fleet.node(2).observe().await.robot.and_then(|robot| robot.session);
    fleet.log.loses_reconciled.store(false, Ordering::Relaxed);
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(jobs::site(&fleet.log.reader()).unwrap().hold, None);
    let now = fleet.node(2).observe().await.robot.and_then(|robot| robot.session);
    assert_eq!(now, session, "in the session that it had all the time");
    let told = fleet.log.reconciled_proposed.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fleet.log.reconciled_proposed.load(Ordering::Relaxed), told, "what is applied is not told again");
}
